"""`python loadtest` as a process, and images for it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from support import ROOT

Start = Callable[..., "subprocess.Popen[str]"]
Loadtest = Callable[..., "subprocess.CompletedProcess[str]"]


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
    """Start it with these arguments."""

    def begin(*arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, str(ROOT / "loadtest"), *map(str, arguments)]
        environment = {"COLUMNS": "120", "PATH": ""}
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)

    return begin


@pytest.fixture(scope="session")
def loadtest(start: Start) -> Loadtest:
    """Run it to its end with these arguments."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        with start(*arguments) as process:
            stdout, stderr = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    return run
