"""The embedded server, with the real Triton and three models that each add one to a number."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from triptych.errors import AccessDenied, ServerCrashed, ServerStartError
from triptych.serving import Ports, TritonServer, preflight, scratch
from triptych.serving.processes import marked_processes, model_processes
from triptych.serving.supervisor import MAX_DEATHS, Supervisor
from triptych.wire import access
from triptych.wire.model_control import ModelControl
from triptych.wire.status import Target, explain_rpc_error

pytestmark = pytest.mark.triton

STAGES = (("preprocess", "X", "A"), ("detector", "A", "B"), ("postprocess", "B", "Y"))

MODEL = """
import os, sys, time
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        {initialize}

    def execute(self, requests):
        return [self.respond(request) for request in requests]

    def respond(self, request):
        numbers = pb_utils.get_input_tensor_by_name(request, "{source}").as_numpy()
        return pb_utils.InferenceResponse([pb_utils.Tensor("{target}", numbers + 1)])
"""

CONFIG = """
max_batch_size: 16
input [ {{ name: "{source}" data_type: TYPE_FP32 dims: [ 1 ] }} ]
output [ {{ name: "{target}" data_type: TYPE_FP32 dims: [ 1 ] }} ]
"""


def write_model(repository: Path, name: str, initialize: str) -> None:
    """Write the code of one model, which runs a statement when it initialises."""
    source, target = next((source, target) for stage, source, target in STAGES if stage == name)
    code = MODEL.format(initialize=initialize, source=source, target=target)
    (repository / name / "1" / "model.py").write_text(code)


def write_repository(directory: Path, **initialize: str) -> Path:
    """Write a repository whose `detection` adds 3. The statements by model name run when that model initialises."""
    repository = directory / "model_repository"
    steps = []
    for name, source, target in STAGES:
        version = repository / name / "1"
        version.mkdir(parents=True)
        write_model(repository, name, initialize.get(name, "pass"))
        group = "instance_group [ { count: 1 kind: KIND_CPU } ]"
        (version.parent / "config.pbtxt").write_text(
            f'backend: "python"{CONFIG.format(source=source, target=target)}{group}\n'
        )
        maps = f'input_map {{ key: "{source}" value: "{source}" }} output_map {{ key: "{target}" value: "{target}" }}'
        steps.append(f'{{ model_name: "{name}" model_version: -1 {maps} }}')
    (repository / "detection" / "1").mkdir(parents=True)
    (repository / "detection" / "config.pbtxt").write_text(
        f'platform: "ensemble"{CONFIG.format(source="X", target="Y")}'
        f"ensemble_scheduling {{ step [ {', '.join(steps)} ] }}\n"
    )
    return repository


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_repository(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[TritonServer]:
    with TritonServer(
        repository, ports=Ports.free(), log_path=repository.parent / "server.log", instances={"preprocess": 2}
    ) as server:
        yield server
    assert leftovers(server) == []
    server.stop()  # once more does nothing


class Caller:
    """Calls one server by gRPC."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.channel = grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
        self.service = service_pb2_grpc.GRPCInferenceServiceStub(self.channel)

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def add_three(self, number: float) -> float:
        request = service_pb2.ModelInferRequest(model_name="detection")
        request.inputs.add(name="X", datatype="FP32", shape=[1, 1])
        request.raw_input_contents.append(np.float32(number).tobytes())
        response = self.service.ModelInfer(request, timeout=5)
        return float(np.frombuffer(response.raw_output_contents[0], np.float32)[0])

    def load(self, model: str) -> None:
        request = service_pb2.RepositoryModelLoadRequest(model_name=model)
        self.service.RepositoryModelLoad(request, timeout=30, metadata=access.key_headers(self.address))

    def unload(self, model: str) -> None:
        request = service_pb2.RepositoryModelUnloadRequest(model_name=model)
        self.service.RepositoryModelUnload(request, timeout=30, metadata=access.key_headers(self.address))


class Serving:
    """`triptych serve` as a process of its own, which ends at the end of the test."""

    def __init__(self, repository: Path, *options: str) -> None:
        self.log = repository.parent / "serve.log"
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "triptych", "serve", "--free-ports"),
                *("--model-repository", str(repository), "--log", str(self.log)),
                *options,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(repository.parent)},  # nothing can tidy up after a process is killed
        )
        self.report = ""

    def __enter__(self) -> Serving:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.communicate(timeout=30)

    def read_until(self, words: str) -> str:
        """Read the report up to the line with these words, and return that line."""
        assert self.process.stdout
        assert self.process.stderr
        for line in self.process.stdout:
            self.report += line
            if words in line:
                return line
        raise AssertionError(f"no {words!r} in: {self.report}{self.process.stderr.read()}")

    def wait_ready(self) -> None:
        self.read_until("Try it")

    @property
    def address(self) -> str:
        (address,) = re.findall(r"gRPC +(\S+)", self.report)
        return str(address)

    @property
    def server(self) -> psutil.Process:
        children = psutil.Process(self.process.pid).children()
        return next(child for child in children if child.name() == "tritonserver")

    def model_process(self, model: str) -> psutil.Process:
        """Return the one process of a model, once the one that it replaced as the server started is gone."""

        def processes() -> list[psutil.Process]:
            return [psutil.Process(process.pid) for process in model_processes(self.server) if process.model == model]

        wait_for(lambda: len(processes()) == 1)
        return processes()[0]

    def end(self) -> tuple[int, str]:
        """Wait until the process ends by itself, and return its exit code and standard error."""
        _, errors = self.process.communicate(timeout=30)
        return self.process.returncode, errors


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def leftovers(server: TritonServer) -> list[str]:
    """Return what a server has on this machine: regions of shared memory, processes, temporary files."""
    prefix = server._shm_prefix
    processes = [str(process.pid) for process in marked_processes(prefix)]
    scratch = [server._scratch.directory] if server._scratch else []
    files = [str(path) for path in (*scratch, access.key_path(server.ports.grpc)) if path.exists()]
    return [path.name for path in preflight.SHARED_MEMORY.glob(f"{prefix}*")] + processes + files


# Starting and stopping.


def test_serves_every_model(server: TritonServer) -> None:
    with Caller(server.grpc_address) as caller:
        assert caller.add_three(4) == 7
    assert server.ready_s > 0


def test_gives_models_their_instances(server: TritonServer) -> None:
    expected = {"preprocess": 2, "detector": 1, "postprocess": 1}
    # The instance that was there before may take a second to go.
    wait_for(lambda: {model: len(pids) for model, pids in server.model_processes().items()} == expected)
    assert server.served()["preprocess", "1"] == 2


def test_listens_on_the_loopback_interface_alone(server: TritonServer) -> None:
    connections = psutil.Process(server.pid).net_connections("tcp")
    listening = [connection.laddr for connection in connections if connection.status == "LISTEN"]
    assert {address.ip.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}
    assert {address.port for address in listening} == {server.ports.grpc, server.ports.metrics}


# Who may come in.


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("RepositoryModelLoad", service_pb2.RepositoryModelLoadRequest(model_name="preprocess")),
        ("RepositoryModelUnload", service_pb2.RepositoryModelUnloadRequest(model_name="preprocess")),
        ("RepositoryIndex", service_pb2.RepositoryIndexRequest()),
        ("TraceSetting", service_pb2.TraceSettingRequest()),
        ("LogSettings", service_pb2.LogSettingsRequest()),
        ("SystemSharedMemoryRegister", service_pb2.SystemSharedMemoryRegisterRequest(name="a", key="b", byte_size=1)),
        ("CudaSharedMemoryStatus", service_pb2.CudaSharedMemoryStatusRequest()),
    ],
)
@pytest.mark.parametrize("key", ["", "wrong"])
def test_who_has_no_key_changes_nothing(server: TritonServer, method: str, request_: object, key: str) -> None:
    headers = ((access.GRPC_HEADER, key),) if key else ()
    with Caller(server.grpc_address) as caller:
        with pytest.raises(grpc.RpcError) as caught:
            getattr(caller.service, method)(request_, timeout=5, metadata=headers)
        error = explain_rpc_error(caught.value, Target(server.grpc_address, "preprocess", 5)).error
        assert isinstance(error, AccessDenied)
        assert "as the user who started it with `triptych serve`" in str(error)
        assert caller.add_three(1) == 4


def test_our_commands_find_the_key_and_nobody_reads_it_off_the_process(server: TritonServer) -> None:
    path = access.key_path(server.ports.grpc)
    assert path.stat().st_mode & 0o777 == 0o600
    assert not any(path.read_text() in argument for argument in psutil.Process(server.pid).cmdline())
    with contextlib.closing(ModelControl(server.grpc_address)) as control:
        assert control.unloaded() == []
        control.restart("postprocess", 30)


def test_a_page_in_a_browser_cannot_load_a_model(tmp_path: Path) -> None:
    repository = write_repository(tmp_path)
    with TritonServer(repository, ports=Ports.free(), log_path=tmp_path / "log", http=True) as server:

        def post(path: str, key: str | None = None) -> int:
            headers = {"Content-Type": "text/plain", "Origin": "http://evil.example"}
            headers |= {access.KEY_NAME: key} if key else {}
            request = urllib.request.Request(server.http_url + path, b"{}", headers)
            try:
                with urllib.request.urlopen(request, timeout=30) as response:
                    return int(response.status)
            except urllib.error.HTTPError as error:
                return error.code

        assert post("/v2/repository/models/preprocess/unload") == 403
        assert post("/v2/repository/models/preprocess/load") == 403
        assert post("/v2/systemsharedmemory/region/a/register") == 403
        assert post("/v2/repository/models/preprocess/load", access.read_key(server.grpc_address)) == 200


# Several servers.


def test_two_servers_do_not_disturb_each_other_and_leave_nothing(server: TritonServer, tmp_path: Path) -> None:
    with TritonServer(write_repository(tmp_path), ports=Ports.free(), log_path=tmp_path / "log") as other:
        with Caller(other.grpc_address) as caller:
            assert caller.add_three(1) == 4
        assert len(leftovers(other)) >= 3 + 4 + 2
        # A dead model process must not keep the server from stopping.
        os.kill(other.model_processes()["detector"][0], signal.SIGKILL)
    assert leftovers(other) == []
    assert leftovers(server) != []
    with Caller(server.grpc_address) as caller:
        assert caller.add_three(1) == 4


@pytest.mark.slow
@pytest.mark.timing
def test_stops_in_time_when_a_model_process_is_dead(tmp_path: Path) -> None:
    with TritonServer(write_repository(tmp_path), ports=Ports.free(), log_path=tmp_path / "log") as server:
        os.kill(server.model_processes()["detector"][0], signal.SIGKILL)
        began = time.monotonic()
    assert time.monotonic() - began < 10


def test_a_server_outlives_the_thread_that_started_it_and_leaves_nothing_when_it_is_killed(tmp_path: Path) -> None:
    server = TritonServer(write_repository(tmp_path), ports=Ports.free(), log_path=tmp_path / "log")
    try:
        thread = threading.Thread(target=server.start)
        thread.start()
        thread.join()
        server.wait_ready()
        server.raise_if_ended()
        os.kill(server.pid, signal.SIGKILL)
        wait_for(lambda: server.processes() == [])
        with pytest.raises(ServerCrashed, match=r"the server was killed \(SIGKILL\), by somebody or by the kernel"):
            Supervisor(server, print).check()
    finally:
        server.stop()
    assert leftovers(server) == []


# What keeps it from starting.


def test_says_who_took_the_port(server: TritonServer, repository: Path) -> None:
    other = TritonServer(repository, ports=Ports(http=1, grpc=server.ports.grpc, metrics=2))
    with pytest.raises(ServerStartError) as caught:
        other.start()
    assert str(caught.value) == (
        f"port {server.ports.grpc} is taken by tritonserver (process {server.pid}); "
        "choose another with --grpc-port or let --free-ports choose"
    )
    assert access.read_key(server.grpc_address) == server._key


def test_says_who_took_the_port_at_the_last_moment(
    server: TritonServer, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "check_ports", lambda ports, http, host: None)
    free = Ports.free()
    ports = Ports(http=free.http, grpc=server.ports.grpc, metrics=free.metrics)
    late = TritonServer(repository, ports=ports, log_path=tmp_path / "log")
    with pytest.raises(ServerStartError, match=rf"^port {ports.grpc} is taken by tritonserver \(.*--grpc-port"), late:
        pass
    assert access.read_key(server.grpc_address) == server._key
    assert leftovers(late) == [str(access.key_path(server.ports.grpc))]


def test_says_why_a_model_did_not_load(tmp_path: Path) -> None:
    repository = write_repository(tmp_path, postprocess="import no_such_module")
    server = TritonServer(repository, ports=Ports.free(), log_path=tmp_path / "log")
    try:
        server.start()
        with pytest.raises(ServerStartError) as caught:
            server.wait_ready()
        assert str(caught.value) == (
            "postprocess did not load: ModuleNotFoundError: No module named 'no_such_module' "
            f"({repository}/postprocess/1/model.py, line 7); install the module for {sys.executable}; "
            f"the whole log is {server.log_path}"
        )
        # The server is still there, so the same start shows other failures of the model that never loaded.
        write_model(repository, "postprocess", "import faulthandler; faulthandler.enable(); os.abort()")
        reason = r"^postprocess did not load: its process died; the last errors in its log: .*Fatal Python error"
        with pytest.raises(ServerStartError, match=reason):
            server.wait_ready()
        write_model(repository, "postprocess", "os.kill(os.getppid(), 9); time.sleep(30)")
        with pytest.raises(ServerStartError, match=r"^the server was killed \(SIGKILL\)"):
            server.wait_ready()
    finally:
        server.stop()
    assert leftovers(server) == []


@pytest.mark.slow
def test_says_what_was_still_loading(tmp_path: Path) -> None:
    repository = write_repository(tmp_path, detector="time.sleep(30)")
    server = TritonServer(repository, ports=Ports.free(), log_path=tmp_path / "log", ready_timeout_s=2)
    with pytest.raises(ServerStartError, match=r"not ready within 2 s \(still loading: detector\)"), server:
        pass
    assert leftovers(server) == []


# Watching over it.


def test_a_reload_by_others_is_not_a_death(server: TritonServer, repository: Path) -> None:
    lines: list[str] = []
    supervisor = Supervisor(server, lines.append)
    detector = repository / "detector"

    def change() -> None:
        os.utime(detector / "1" / "model.py")
        caller.load("detector")
        shutil.copytree(detector / "1", detector / "2")
        caller.load("detector")
        shutil.rmtree(detector / "2")
        caller.load("detector")
        caller.load("detection")  # takes an instance from preprocess, as its file says
        caller.unload("postprocess")
        caller.load("detection")

    with Caller(server.grpc_address) as caller:
        thread = threading.Thread(target=change)
        thread.start()
        while thread.is_alive():
            supervisor.check()
            time.sleep(0.03)
        thread.join()
        for _ in range(60):  # the old processes leave one by one
            supervisor.check()
            time.sleep(0.03)
        assert caller.add_three(1) == 4
    assert lines == []


def test_serve_restores_a_model_while_requests_flow_and_stops_on_a_signal(tmp_path: Path) -> None:
    with Serving(write_repository(tmp_path)) as serving:
        serving.wait_ready()
        assert "preprocess   version 1, 1 instance" in serving.report
        answers: list[tuple[float, bool]] = []
        done = threading.Event()

        def call() -> None:
            with Caller(serving.address) as caller:
                while not done.is_set():
                    began = time.monotonic()
                    try:
                        good = caller.add_three(1) == 4
                    except grpc.RpcError:
                        good = False
                    answers.append((began, good))
                    done.wait(0.01)

        threads = [threading.Thread(target=call) for _ in range(4)]
        for thread in threads:
            thread.start()
        wait_for(lambda: len(answers) > 20)
        victim = serving.model_process("postprocess")
        victim.kill()
        line = serving.read_until("reloaded")
        reloaded = time.monotonic()
        assert re.fullmatch(rf"postprocess: its process {victim.pid} died; reloaded in \d\.\d s\n", line)
        wait_for(lambda: sum(began > reloaded for began, _ in list(answers)) > 20)
        done.set()
        for thread in threads:
            thread.join()
        assert not all(good for _, good in answers), "the kill was meant to be felt"
        assert all(good for began, good in answers if began > reloaded)

        server = serving.server
        serving.process.send_signal(signal.SIGINT)
        code, errors = serving.end()
    assert (code, errors) == (0, "")
    assert not server.is_running()


@pytest.mark.slow
@pytest.mark.timing
def test_serve_restores_a_model_within_seconds_and_gives_up_in_the_end(tmp_path: Path) -> None:
    with Serving(write_repository(tmp_path)) as serving:
        serving.wait_ready()
        for _ in range(MAX_DEATHS - 1):
            serving.model_process("postprocess").kill()
            killed = time.monotonic()
            serving.read_until("reloaded")
            assert time.monotonic() - killed < 5
        serving.model_process("postprocess").kill()
        code, errors = serving.end()
    assert code == 3
    assert re.match(r"error: postprocess died 5 times within \d+ s", errors)


@pytest.mark.slow
def test_serve_gives_up_when_a_model_does_not_load_again(tmp_path: Path) -> None:
    flag = tmp_path / "broken"
    repository = write_repository(tmp_path, detector=f'if os.path.exists("{flag}"): raise ValueError("no weights")')
    with Serving(repository) as serving:
        serving.wait_ready()
        flag.touch()
        serving.model_process("detector").kill()
        code, errors = serving.end()
    assert code == 3
    assert errors.startswith("error: detector did not load: ValueError: no weights (")


@pytest.mark.slow
def test_serve_stops_on_a_signal_while_it_starts(tmp_path: Path) -> None:
    with Serving(write_repository(tmp_path, detector="time.sleep(2)"), "--verbose") as serving:
        wait_for(lambda: serving.log.exists() and "loading: detector" in serving.log.read_text())
        serving.process.send_signal(signal.SIGTERM)
        code, errors = serving.end()
    assert code == 0
    assert "loading: detector" in errors  # --verbose shows the log


@pytest.mark.slow
@pytest.mark.timing
def test_a_second_signal_kills_at_once(tmp_path: Path) -> None:
    with Serving(write_repository(tmp_path, detector="time.sleep(20)"), "--ready-timeout-s", "60") as serving:
        wait_for(lambda: serving.log.exists() and "loading: detector" in serving.log.read_text())
        server = serving.server
        began = time.monotonic()
        serving.process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        serving.process.send_signal(signal.SIGINT)
        code, _ = serving.end()
    assert code == 130
    assert time.monotonic() - began < 5
    assert not server.is_running()


@pytest.mark.parametrize("whom", ["serve", "serve and the server"])
def test_nothing_is_left_of_a_process_that_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whom: str
) -> None:
    with Serving(write_repository(tmp_path)) as serving:
        serving.wait_ready()
        server = serving.server
        key = access.key_path(int(serving.address.rpartition(":")[2]))
        (mark,) = (a.rpartition("=")[2] for a in server.cmdline() if "shm-region-prefix-name" in a)
        regions = list(preflight.SHARED_MEMORY.glob(f"{mark}*"))
        assert regions
        assert key.exists()
        serving.process.kill()
        if whom != "serve":
            server.kill()
        wait_for(lambda: not server.is_running())
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where that server's temporary files are
    (left,) = tmp_path.glob("triptych-*")
    assert scratch.remove_leftovers() == [left]
    assert marked_processes(mark) == []
    assert not [path for path in (left, key, *regions) if path.exists()]


def test_serve_loads_again_what_somebody_unloads(tmp_path: Path) -> None:
    with Serving(write_repository(tmp_path)) as serving:
        serving.wait_ready()
        with Caller(serving.address) as caller, contextlib.closing(ModelControl(serving.address)) as control:
            config = control.config("preprocess")
            config.parameters["mark"].string_value = "as it was served"
            control.load("preprocess", 30, config)
            wait_for(lambda: len(model_processes(serving.server)) == 3)
            time.sleep(2)  # the supervisor has seen it
            for model in ("preprocess", "detection"):
                caller.unload(model)
                assert model in serving.read_until("somebody unloaded it; loaded again in")
                assert caller.add_three(1) == 4
                assert control.config("preprocess").parameters["mark"].string_value == "as it was served"


def test_serve_ends_and_reloads_a_process_that_was_stopped(tmp_path: Path) -> None:
    with Serving(write_repository(tmp_path)) as serving:
        serving.wait_ready()
        victim = serving.model_process("postprocess")
        victim.suspend()
        line = serving.read_until("reloaded in")
        assert line.startswith(f"postprocess: ended its process {victim.pid}, which stood still; reloaded in")
        with Caller(serving.address) as caller:
            assert caller.add_three(1) == 4


@pytest.mark.slow
def test_serve_ends_when_the_server_is_silent(tmp_path: Path) -> None:
    with Serving(write_repository(tmp_path)) as serving:
        serving.wait_ready()
        server = serving.server
        server.suspend()
        code, errors = serving.end()
    assert code == 3
    assert re.match(r"error: the server runs, but has not answered for \d+ s; it was killed", errors)
    assert not server.is_running()
