"""kill -9 under load: clients see the tree's own errors, models come back, and a dead server is said to be dead."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest

from triptych import DetectionClient
from triptych.errors import RequestError, ServerUnavailable

pytestmark = [pytest.mark.triton, pytest.mark.slow]

USERS = 3


class Load:
    """Users who send images until they are told to stop, and what came back."""

    def __init__(self, address: str) -> None:
        noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        self.image = cv2.imencode(".jpg", noise)[1].tobytes()
        self.address = address
        self.outcomes: Counter[type] = Counter()
        self.lock = threading.Lock()
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self.user) for _ in range(USERS)]

    def user(self) -> None:
        with DetectionClient(self.address, retries=0, timeout_s=5) as client:
            while not self.stop.is_set():
                try:
                    outcome = type(client.detect(self.image))
                except Exception as error:
                    outcome = type(error)
                    time.sleep(0.05)
                with self.lock:
                    self.outcomes[outcome] += 1

    def __enter__(self) -> Load:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join()

    def take(self) -> Counter[type]:
        with self.lock:
            outcomes, self.outcomes = self.outcomes, Counter()
        return outcomes

    @staticmethod
    def failures(outcomes: Counter[type]) -> list[type]:
        return [kind for kind in outcomes if kind.__name__ != "Detections"]


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
