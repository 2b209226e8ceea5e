"""kill -9 under load: clients see the tree's own errors, models come back, and a dead server is said to be dead."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from support import ROOT
from support.steady import planted_repository
from support.traffic import Traffic
from triptych.client import DetectionClient
from triptych.errors import RequestError, ServerFault, ServerUnavailable
from triptych.serving import Ports, TritonServer, launch
from triptych.serving.processes import model_processes
from triptych.serving.supervisor import Supervisor

pytestmark = [pytest.mark.triton, pytest.mark.slow]


@contextlib.contextmanager
def serving(repository: Path, log: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "triptych", "serve", "--model-repository", str(repository), "--free-ports"]
    process = subprocess.Popen([*command, "--log", str(log)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    yield process
    process.terminate()
    process.communicate(timeout=30)


@pytest.fixture
def serve(demo_repository: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    with serving(demo_repository, tmp_path / "log") as process:
        yield process


def read_until(process: subprocess.Popen[str], pattern: str) -> str:
    """Read what `triptych serve` prints, up to a line that matches, and return the match's first group."""
    assert process.stdout
    assert process.stderr
    for line in process.stdout:
        if match := re.search(pattern, line):
            return match[1]
    raise AssertionError(f"no {pattern} before the end: {process.stderr.read()}")


def triton_of(process: subprocess.Popen[str]) -> psutil.Process:
    (server,) = [child for child in psutil.Process(process.pid).children() if child.name() == "tritonserver"]
    return server


def test_a_killed_model_process_comes_back(serve: subprocess.Popen[str]) -> None:
    address = read_until(serve, r"gRPC +(\S+)")
    with Traffic(address) as traffic:
        assert not traffic.failures(traffic.take_next(6))
        for model in ("preprocess", "detector", "postprocess"):
            victim = next(process for process in model_processes(triton_of(serve)) if process.model == model)
            os.kill(victim.pid, signal.SIGKILL)
            assert read_until(serve, rf"{model}: its process {victim.pid} died; (reloaded)") == "reloaded"
            time.sleep(6)  # requests that the dead process held fail one after another
            failures = traffic.failures(traffic.take())
            assert all(issubclass(kind, RequestError) for kind in failures), failures
            assert not traffic.failures(traffic.take_next(6))
    serve.terminate()
    assert serve.wait(timeout=30) == 0


def test_a_killed_server_is_said_to_be_gone(serve: subprocess.Popen[str]) -> None:
    address = read_until(serve, r"gRPC +(\S+)")
    with Traffic(address) as traffic:
        traffic.take_next(6)
        os.kill(triton_of(serve).pid, signal.SIGKILL)
        assert serve.wait(timeout=30) == 3
        assert traffic.failures(traffic.take_next(6)) == [ServerUnavailable]
    assert serve.stderr
    assert re.search(r"error: the server was killed \(SIGKILL\), by somebody or by the kernel", serve.stderr.read())


def test_a_stage_that_hangs_is_ended_and_reloaded(make_repository: Callable[..., Path], tmp_path: Path) -> None:
    repository = planted_repository(make_repository)
    stalled = repository / "detector" / "1" / "stalled"
    with serving(repository, tmp_path / "log") as serve:
        address = read_until(serve, r"gRPC +(\S+)")
        victims = [process.pid for process in model_processes(triton_of(serve)) if process.model == "detector"]
        stalled.touch()
        psutil.wait_procs([psutil.Process(pid) for pid in victims], timeout=60)
        stalled.unlink()
        line = read_until(serve, r"(detector: .*)")
        assert re.match(r"detector: no answer within \d+ s; ended its processes \d+, \d+; reloaded in", line)
        with DetectionClient(address, timeout_s=30) as client:
            client.detect(np.zeros((64, 64, 3), np.uint8))
            assert client.statistics()["detector"].requests > 0


ONE_HANGS = """

from pathlib import Path

_comes_back = TritonPythonModel.respond


def _hangs_once(self, request):
    try:
        (Path(__file__).parent / "hang").unlink()
    except FileNotFoundError:
        return _comes_back(self, request)
    while True:
        pass


TritonPythonModel.respond = _hangs_once
"""


def test_one_process_of_several_that_hangs_is_ended(
    make_repository: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "EXECUTE_WITHIN_S", 3.0)
    repository = make_repository(ROOT / "demo" / "pcb.onnx")
    model = repository / "detector" / "1" / "model.py"
    model.write_text(model.read_text() + ONE_HANGS)
    said: list[str] = []
    with TritonServer(repository, ports=Ports.free(), log_path=tmp_path / "log") as server:
        supervisor = Supervisor(server, said.append)
        before = [process.pid for process in server.processes() if process.model == "detector"]
        assert len(before) == 2
        with DetectionClient(server.grpc_address, timeout_s=60, retries=0) as client:

            def watch_until(done: Callable[[], object]) -> None:
                until = time.monotonic() + 60
                while not done() and time.monotonic() < until:
                    supervisor.check()
                    time.sleep(0.1)

            watch_until(lambda: client.statistics()["postprocess"].requests)  # the supervisor's own image has passed
            (model.parent / "hang").touch()
            with pytest.raises(ServerFault):
                client.detect(np.zeros((64, 64, 3), np.uint8))
            watch_until(lambda: said)
            [line] = said
            assert re.match(rf"detector: its process ({before[0]}|{before[1]}) died; reloaded in", line)
            client.detect(np.zeros((64, 64, 3), np.uint8))
    assert "in _hangs_once" in (tmp_path / "log").read_text()
