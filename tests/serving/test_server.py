"""What the embedded server says when something is wrong, without a server."""

from __future__ import annotations

import importlib.metadata
import platform
import socket
import subprocess
import sys
import sysconfig
import types
from pathlib import Path

import pytest

from triptych.errors import ContractError, ServerStartError
from triptych.machine import available_cores
from triptych.serving import log as server_log
from triptych.serving import preflight
from triptych.serving.preflight import Ports
from triptych.serving.processes import holder_of_port
from triptych.serving.server import TritonServer, default_instances, default_log_path

NO_GPU = """\
W1121 08:19:01.152328 6778 pinned_memory_manager.cc:273] "Unable to allocate pinned system memory, pinned memory pool \
will not be available: CUDA driver version is insufficient for CUDA runtime version"
I1121 08:19:01.152614 6778 cuda_memory_manager.cc:117] "CUDA memory pool disabled"
E1121 08:19:01.152758 6778 server.cc:241] "CudaDriverHelper has not been initialized."
E1121 08:19:03.305778 6778 ensemble_scheduler.cc:1468] "unable to create stream for detection: CUDA driver version is \
insufficient for CUDA runtime version"
"""

LOAD_ERRORS = r"""
I1121 08:24:20.936083 7546 model_lifecycle.cc:472] "loading: preprocess:1"
I1121 08:24:20.937398 7546 model_lifecycle.cc:472] "loading: detector:1"
I1121 08:24:21.120423 7546 model_lifecycle.cc:839] "successfully loaded 'detector'"
I1121 08:24:21.155678 7546 pb_stub.cc:366] "Failed to initialize Python stub: ModuleNotFoundError: No module named 'x'"
E1121 08:24:21.304139 7546 backend_model.cc:692] "ERROR: Failed to create instance: ModuleNotFoundError: No module \
named 'x'\n\nAt:\n  /r/preprocess/1/model.py(7): initialize\n"
E1121 08:24:21.304226 7546 model_lifecycle.cc:642] "failed to load 'preprocess' version 1: Internal: \
ModuleNotFoundError: No module named 'x'\n\nAt:\n  /r/preprocess/1/model.py(7): initialize\n"
I1121 08:24:21.304246 7546 model_lifecycle.cc:777] "failed to load 'preprocess'"
E1121 08:24:21.306409 7546 model_repository_manager.cc:703] "Invalid argument: ensemble 'detection' depends on \
'preprocess' which has no loaded version. Model 'preprocess' loading failed with error: version 1 is at UNAVAILABLE \
state: Internal: ModuleNotFoundError: No module named 'x'\n\nAt:\n  /r/preprocess/1/model.py(7): initialize\n;"
""".replace("\\\n", "")

PORT_IN_USE = NO_GPU + (
    'E1121 08:24:58.223204 8865 main.cc:245] "failed to start GRPC service: Unavailable - '
    "Socket '127.0.0.1:18401' already in use \"\n"
)

ENSEMBLE = (
    "load failed for model 'detection': ensemble 'detection' depends on 'preprocess' which has no loaded version. "
    "Model 'preprocess' loading failed with error: "
)


# Reading the log.


@pytest.mark.parametrize(
    ("log", "lines"),
    [
        ("", []),
        (NO_GPU, []),
        (LOAD_ERRORS, ["ModuleNotFoundError: No module named 'x'"]),
        (
            'Traceback (most recent call last):\n  File "a.py", line 1\nValueError: no weights\n',
            ["ValueError: no weights"],
        ),
        ("Signal (11) received.\n 0# 0x000055765464252D in tritonserver\n", ["Signal (11) received."]),
        (
            "stub: error while loading shared libraries: libpython3.11.so.1.0: cannot open\n"
            "E1121 08:24:22.875760 75 backend_model.cc:692] \"ERROR: Stub process 'd_0_0' is not healthy.\"\n",
            ["stub: error while loading shared libraries: libpython3.11.so.1.0: cannot open"],
        ),
        ("a model printed this Error\nI am fine\n", []),
    ],
)
def test_error_lines(log: str, lines: list[str]) -> None:
    assert server_log.error_lines(log) == lines


def test_error_lines_are_the_last_ones_without_repetition() -> None:
    log = "".join(f"ValueError: {number}\n" for number in (1, 2, 3, 4, 3))
    assert server_log.error_lines(log, limit=2) == ["ValueError: 4", "ValueError: 3"]
    assert server_log.last_words(log) == "; the last errors in its log: ValueError: 2 | ValueError: 4 | ValueError: 3"


def test_no_last_words_of_a_quiet_log() -> None:
    assert server_log.last_words(NO_GPU) == ""


def test_port_in_use() -> None:
    assert server_log.port_in_use(PORT_IN_USE) == 18401
    assert server_log.port_in_use(NO_GPU) is None


def test_still_loading() -> None:
    assert server_log.still_loading(LOAD_ERRORS) == []
    assert server_log.still_loading("\n".join(LOAD_ERRORS.splitlines()[:4])) == ["preprocess"]


def test_read_tail(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert server_log.read_tail(path) == ""
    path.write_text("0123456789")
    assert server_log.read_tail(path, limit=4) == "6789"
    assert server_log.read_tail(path) == "0123456789"


@pytest.mark.parametrize(
    ("details", "message"),
    [
        (
            f"{ENSEMBLE}version 1 is at UNAVAILABLE state: Internal: ValueError: no\n such weights\n\nAt:\n"
            "  /r/preprocess/1/model.py(7): initialize\n;",
            "preprocess did not load: ValueError: no such weights (/r/preprocess/1/model.py, line 7)",
        ),
        (
            f"{ENSEMBLE}version 1 is at UNAVAILABLE state: Internal: SyntaxError: invalid syntax (model.py, line 7);",
            "preprocess did not load: SyntaxError: invalid syntax (model.py, line 7)",
        ),
        (
            f"{ENSEMBLE}version 1 is at UNAVAILABLE state: Internal: Stub process 'preprocess_0_0' is not healthy.;",
            "preprocess did not load: its process died",
        ),
        (
            f"{ENSEMBLE}at least one version must be available under the version policy of model 'preprocess'",
            "preprocess did not load: at least one version must be available under the version policy of model "
            "'preprocess'",
        ),
        (
            "load failed for model 'detector': version 3 is at UNAVAILABLE state: Invalid argument: no such engine;",
            "detector did not load: no such engine",
        ),
        ("failed to poll from model repository", "detection did not load: failed to poll from model repository"),
    ],
)
def test_load_failure(details: str, message: str) -> None:
    assert str(server_log.load_failure("detection", details)) == message


@pytest.mark.parametrize(
    ("returncode", "words"),
    [
        (1, "ended with exit status 1"),
        (-9, "was killed (SIGKILL), by somebody or by the kernel for lack of memory"),
        (-11, "crashed (SIGSEGV)"),
        (-15, "was ended by SIGTERM"),
        (-63, "was ended by signal 63"),
    ],
)
def test_describe_exit(returncode: int, words: str) -> None:
    assert server_log.describe_exit(returncode) == words


# What must be true before it starts.


def test_finds_the_installation() -> None:
    installation = preflight.find_installation()
    assert installation.binary.is_file()
    assert installation.stub.parent.name == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert all(path.is_dir() for path in installation.libraries)


def test_the_models_python_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/cuda")
    environment = preflight.find_installation().environment()
    assert environment["PATH"] == f"{Path(sys.executable).parent}:/usr/bin"
    assert environment["LD_LIBRARY_PATH"].endswith(":/opt/cuda")


def test_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(ServerStartError, match=r"this is Linux aarch64; run the models in a Triton container"):
        preflight.find_installation()


def test_another_libc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    with pytest.raises(ServerStartError, match="with glibc"):
        preflight.find_installation()


def test_triton_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(ServerStartError, match=r"not installed; install it with `pip install 'triptych\[serve\]'`"):
        preflight.find_installation()


def test_a_python_without_a_stub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "STUB", "no_such_stub")
    with pytest.raises(ServerStartError, match="runs models on Python none"):
        preflight.find_installation()
    monkeypatch.undo()
    monkeypatch.setattr(sys, "version_info", types.SimpleNamespace(major=3, minor=99))
    with pytest.raises(ServerStartError, match=r"Python 3\.8, 3\.9, 3\.10, .*, but this is 3\.99"):
        preflight.find_installation()


def test_no_libpython(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_config_var", lambda name: "/nowhere")
    monkeypatch.setattr(sys, "base_prefix", "/nowhere")
    monkeypatch.setattr(Path, "is_file", lambda path: "libpython" not in path.name)
    with pytest.raises(ServerStartError, match=r"need libpython3\.\d+\.so\.1\.0, .*`apt install libpython3\.\d+`"):
        preflight.find_installation()


def test_no_python3_beside_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/bin/python")
    with pytest.raises(ServerStartError, match="`ln -s /nowhere/bin/python /nowhere/bin/python3`"):
        preflight.find_installation()


def test_shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "SHARED_MEMORY", tmp_path / "missing")
    with pytest.raises(ServerStartError, match="cannot be written"):
        preflight.check_shared_memory()
    monkeypatch.setattr(preflight, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(preflight, "MIN_SHARED_MEMORY_BYTES", 10**18)
    with pytest.raises(ServerStartError, match=r"has \d+ MB left, .* `--shm-size=1g`"):
        preflight.check_shared_memory()


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        free = Ports.free()
        with pytest.raises(ServerStartError) as caught:
            preflight.check_ports(Ports(http=free.http, grpc=free.grpc, metrics=port))
        assert holder_of_port(port).endswith(")")
    assert str(caught.value).startswith(f"port {port} is taken by ")
    assert str(caught.value).endswith("; choose another with --metrics-port or let --free-ports choose")


def test_ports_that_are_the_same() -> None:
    with pytest.raises(ServerStartError, match="must differ, but got 8000, 8000, 8002"):
        preflight.check_ports(Ports(grpc=8000))


def test_free_ports_differ_and_are_free() -> None:
    preflight.check_ports(Ports.free())


# The repository.


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    repository = tmp_path / "models"
    write(repository / "detection" / "config.pbtxt", 'platform: "ensemble"')
    for model in ("preprocess", "detector", "postprocess"):
        write(repository / model / "config.pbtxt", 'backend: "python"')
        write(repository / model / "1" / "model.py")
    preflight.check_repository(repository)
    return repository


def test_no_repository(tmp_path: Path) -> None:
    with pytest.raises(ServerStartError, match=rf"no model repository at {tmp_path}/models; .*--model-repository"):
        preflight.check_repository(tmp_path / "models")


@pytest.mark.parametrize("missing", ["config.pbtxt", "1"])
def test_no_published_detector(repository: Path, missing: str) -> None:
    path = repository / "detector" / missing
    path.rename(path.with_name("README.md"))
    with pytest.raises(ServerStartError, match=r"has no published detector; publish one with `python build "):
        preflight.check_repository(repository)


def test_a_missing_model(repository: Path) -> None:
    (repository / "postprocess" / "config.pbtxt").unlink()
    with pytest.raises(ServerStartError, match=r"there is no .*postprocess/config\.pbtxt; restore it"):
        preflight.check_repository(repository)


def test_a_config_that_does_not_parse(repository: Path) -> None:
    write(repository / "preprocess" / "config.pbtxt", "nonsense {")
    with pytest.raises(ServerStartError, match=r"preprocess/config\.pbtxt is not a model configuration"):
        preflight.check_repository(repository)


@pytest.mark.parametrize("config", ['platform: "tensorrt_plan"', 'backend: "tensorrt_plan"'])
def test_a_detector_for_another_backend(repository: Path, config: str) -> None:
    write(repository / "detector" / "config.pbtxt", config)
    with pytest.raises(ServerStartError, match=r"detector is made for Triton's tensorrt_plan backend, .*openvino"):
        preflight.check_repository(repository)


def test_a_version_without_its_model(repository: Path) -> None:
    (repository / "preprocess" / "1" / "model.py").unlink()
    with pytest.raises(ServerStartError, match=r"there is no .*preprocess/1/model\.py; restore it, or remove"):
        preflight.check_repository(repository)


# The server, before it runs.


@pytest.mark.parametrize(
    ("cores", "preprocess", "postprocess"), [(1, 1, 1), (2, 1, 1), (4, 2, 1), (16, 8, 2), (64, 32, 8)]
)
def test_default_instances(cores: int, preprocess: int, postprocess: int) -> None:
    assert default_instances(cores) == {"preprocess": preprocess, "postprocess": postprocess}


def test_available_cores() -> None:
    assert available_cores() >= 1


@pytest.mark.parametrize("instances", [{"resize": 1}, {"preprocess": 0}])
def test_instances_that_cannot_be(tmp_path: Path, instances: dict[str, int]) -> None:
    with pytest.raises(ContractError, match="at least 1 of preprocess, detector, postprocess, but got"):
        TritonServer(tmp_path, instances=instances)


def test_addresses(tmp_path: Path) -> None:
    server = TritonServer(tmp_path, ports=Ports(http=1, grpc=2, metrics=3))
    assert server.grpc_address == "127.0.0.1:2"
    assert server.http_url == "http://127.0.0.1:1"
    assert server.metrics_url == "http://127.0.0.1:3/metrics"


def test_the_log_goes_to_the_state_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert default_log_path(Ports()) == Path("/state/triptych/server-8001.log")


def test_a_log_that_cannot_be_written(repository: Path) -> None:
    server = TritonServer(repository, ports=Ports.free(), log_path=repository)
    with pytest.raises(ServerStartError, match=r"the log .* cannot be written \(Is a directory\); .*--log"):
        server.start()
    server.stop()


def test_a_server_that_was_not_started(tmp_path: Path) -> None:
    server = TritonServer(tmp_path)
    server.stop()
    with pytest.raises(ServerStartError, match=r"call start\(\)"):
        server.wait_ready()
    with pytest.raises(ServerStartError, match=r"call start\(\)"):
        _ = server.pid


def test_serve_without_its_packages() -> None:
    code = """
import sys
sys.modules["psutil"] = None
from triptych.cli.serve import serve
from triptych.cli.console import run
run(serve)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert (
        done.stderr == "error: the server needs the package psutil; install it with `pip install 'triptych[serve]'`\n"
    )
