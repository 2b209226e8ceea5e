"""kill -9 under load: clients see the tree's own errors, models come back, and a dead server is said to be dead."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from support.traffic import Load
from triptych.errors import RequestError, ServerUnavailable

pytestmark = [pytest.mark.triton, pytest.mark.slow]


@pytest.fixture
def serve(demo_repository: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "triptych", "serve", "--model-repository", str(demo_repository), "--free-ports"]
    process = subprocess.Popen(
        [*command, "--log", str(tmp_path / "log")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    yield process
    process.terminate()
    process.communicate(timeout=30)


def read_until(process: subprocess.Popen[str], pattern: str) -> str:
    """What `triptych serve` prints, up to a line that matches; the match's first group."""
    for line in process.stdout:
        if match := re.search(pattern, line):
            return match[1]
    raise AssertionError(f"no {pattern} before the end: {process.stderr.read()}")


def triton_of(process: subprocess.Popen[str]) -> psutil.Process:
    (server,) = [child for child in psutil.Process(process.pid).children() if child.name() == "tritonserver"]
    return server


@pytest.mark.parametrize("model", ["preprocess", "detector", "postprocess"])
def test_a_killed_model_process_comes_back(serve: subprocess.Popen[str], model: str) -> None:
    address = read_until(serve, r"gRPC +(\S+)")
    with Load(address) as load:
        time.sleep(1)
        assert not load.failures(load.take())
        victim = next(child for child in triton_of(serve).children() if f"/{model}/" in " ".join(child.cmdline()))
        os.kill(victim.pid, signal.SIGKILL)
        assert read_until(serve, rf"{model}: its process {victim.pid} died; (reloaded)") == "reloaded"
        time.sleep(6)  # requests that the dead process held fail one after another
        failures = load.failures(load.take())
        assert all(issubclass(kind, RequestError) for kind in failures), failures
        time.sleep(1)
        after = load.take()
        assert sum(after.values()) > 5
        assert not load.failures(after)
    assert serve.poll() is None


def test_a_killed_server_is_said_to_be_gone(serve: subprocess.Popen[str]) -> None:
    address = read_until(serve, r"gRPC +(\S+)")
    with Load(address) as load:
        time.sleep(1)
        load.take()
        os.kill(triton_of(serve).pid, signal.SIGKILL)
        assert serve.wait(timeout=15) == 3
        load.take()
        time.sleep(1)
        failures = load.failures(load.take())
    assert failures == [ServerUnavailable]
    assert re.search(r"error: the server was killed .*SIGKILL", serve.stderr.read())
