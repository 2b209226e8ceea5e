"""`python loadtest` as a process against the real server."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from support import ROOT

pytestmark = pytest.mark.triton


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("images")
    noise = np.random.default_rng(1).integers(0, 256, (3, 240, 320, 3), dtype=np.uint8)
    for number, image in enumerate(noise):
        cv2.imwrite(str(directory / f"{number}.jpg"), image)
    return directory


def loadtest(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "loadtest"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={"COLUMNS": "120", "PATH": ""})


def figures(stdout: str, row: str) -> list[float]:
    (line,) = [line for line in stdout.splitlines() if line.startswith(f"│ {row} ")]
    return [float(number) for number in re.findall(r"-?\d+\.\d+", line)]


def test_both_sides_of_one_window(demo_server, images):
    done = loadtest(
        "--address", demo_server.grpc_address, "--images", images, "--users", 3, "--warmup", 1, "--duration", 3
    )
    assert done.returncode == 0, done.stderr
    count = int(re.search(r"(\d+) requests in", done.stdout)[1])
    assert count > 5
    rows = ["preprocess", "detector", "postprocess", "ensemble overhead", "network and client"]
    parts = [figures(done.stdout, row)[-1] for row in rows]
    (mean,) = figures(done.stdout, "client, end to end")
    assert sum(parts) == pytest.approx(mean, rel=0.02)
    assert figures(done.stdout, "detector")[2] > figures(done.stdout, "postprocess")[2], "the detector owns the time"


def test_refused_images_are_failures_with_their_reason(demo_server, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"not an image at all")
    done = loadtest(
        "--address", demo_server.grpc_address, "--images", tmp_path, "--users", 1, "--warmup", 0.2, "--duration", 0.5
    )
    assert done.returncode == 1
    assert "failed: ImageError" in done.stdout


def test_nobody_at_the_address_is_one_sentence(images):
    done = loadtest("--address", "127.0.0.1:9", "--images", images, "--duration", 1, "--warmup", 0.1)
    assert done.returncode == 1
    assert "no server answers at 127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_empty_directory_is_one_sentence(tmp_path):
    done = loadtest("--images", tmp_path)
    assert done.returncode == 1
    assert f"no images in {tmp_path}" in done.stderr
