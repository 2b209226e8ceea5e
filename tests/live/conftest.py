"""`python loadtest` as a process, images for it, and one steady server for all tests that need one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from support import ROOT
from support.steady import Planted, planted_repository
from support.types import Loadtest, Start
from triptych.serving.server import Ports, TritonServer


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of three images."""
    directory = tmp_path_factory.mktemp("images")
    noise = np.random.default_rng(1).integers(0, 256, (3, 240, 320, 3), dtype=np.uint8)
    for number, image in enumerate(noise):
        cv2.imwrite(str(directory / f"{number}.jpg"), image)
    return directory


@pytest.fixture(scope="session")
def start() -> Start:
    """Start a load test with these arguments: `python loadtest`, or what else means it."""

    def begin(*arguments: object, loadtest: Sequence[str] = (str(ROOT / "loadtest"),)) -> subprocess.Popen[str]:
        command = [sys.executable, *loadtest, *map(str, arguments)]
        environment = {"COLUMNS": "120", "PATH": ""}
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)

    return begin


@pytest.fixture(scope="session")
def loadtest(start: Start) -> Loadtest:
    """Run a load test to its end with these arguments."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        with start(*arguments) as process:
            stdout, stderr = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    return run


@pytest.fixture(scope="session")
def planted_server(make_repository: Callable[..., Path]) -> Iterator[Planted]:
    """One server for the session, whose stages are as slow as a test wants."""
    repository = planted_repository(make_repository)
    with TritonServer(repository, ports=Ports.free(), log_path=repository.parent / "log") as server:
        yield Planted(server, repository)


@pytest.fixture
def planted(planted_server: Planted) -> Planted:
    """That server, with a steady detector and no delay."""
    planted_server.reset()
    return planted_server


@pytest.fixture
def steady_address(planted: Planted) -> str:
    """The address of a server whose detector takes 25 ms and no CPU."""
    return planted.server.grpc_address
