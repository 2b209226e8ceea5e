"""Each program in examples/, run as its docstring says, against the real Triton."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import pytest

from support import ROOT
from support.measured import made_up
from triptych.measure import run_file
from triptych.serving.server import TritonServer

EXAMPLES = ROOT / "examples"


def run_example(name: str, *arguments: object, exit_code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == exit_code, done.stdout + done.stderr
    return done


@pytest.mark.triton
def test_one_image(demo_server: TritonServer, pictures: Path, tmp_path: Path) -> None:
    marked = tmp_path / "marked.png"
    done = run_example("one_image.py", pictures / "board-0.jpg", marked, demo_server.grpc_address)
    objects = done.stdout.splitlines()
    assert objects
    assert all(re.fullmatch(r"[a-z ]+ [01]\.\d\d from \(\d+, \d+\) to \(\d+, \d+\)", line) for line in objects)
    picture = cv2.imread(str(marked))
    assert picture is not None
    assert picture.shape == (640, 640, 3)


@pytest.mark.triton
def test_a_folder(demo_server: TritonServer, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "detections.jsonl"
    done = run_example("folder.py", pictures, out, demo_server.grpc_address)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [Path(line["source"]).name for line in lines] == [f"board-{index}.jpg" for index in range(4)]
    assert any(line["detections"] for line in lines)
    assert done.stdout == f"4 of 4 images are in {out}\n"


@pytest.mark.triton
def test_a_folder_with_a_file_that_is_no_image(demo_server: TritonServer, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"nothing")
    (tmp_path / "b.jpg").write_bytes((pictures / "board-0.jpg").read_bytes())
    out = tmp_path / "detections.jsonl"
    done = run_example("folder.py", tmp_path, out, demo_server.grpc_address, exit_code=1)
    assert "a.jpg: " in done.stderr
    assert done.stdout == f"1 of 2 images are in {out}\n"


@pytest.mark.triton
def test_a_video(demo_server: TritonServer, video: Path) -> None:
    seconds = run_example("video.py", video, demo_server.grpc_address).stdout.splitlines()
    assert [line.split(":")[0].strip() for line in seconds] == ["0 s", "1 s"]
    assert re.search(r"\d\.\d [a-z]", seconds[0]), seconds


@pytest.mark.triton
def test_a_fixed_rate(demo_server: TritonServer, pictures: Path) -> None:
    done = run_example("fixed_rate.py", pictures / "board-0.jpg", 5, 1, demo_server.grpc_address)
    assert re.fullmatch(r"5 of 5 requests answered, p50 \d+\.\d ms, p95 \d+\.\d ms\n", done.stdout)


def in_turn(directory: Path, **b: Any) -> list[str]:
    """Return the files of four runs of two sides, taken in turn, with commas between them."""
    sides: list[list[str]] = [[], []]
    for seed in range(8):
        path = directory / f"{seed}.json"
        run_file.write(path, made_up(seed, 0.02, **(b if seed % 2 else {})))
        sides[seed % 2].append(str(path))
    return [",".join(side) for side in sides]


def test_the_gate_lets_the_same_speed_through(tmp_path: Path) -> None:
    assert "no difference" in run_example("gate.py", *in_turn(tmp_path)).stdout


def test_the_gate_refuses_a_slower_service(tmp_path: Path) -> None:
    done = run_example("gate.py", *in_turn(tmp_path, slower=2.0), exit_code=1)
    assert re.search(r"after: p95 went from 103\.\d to 20\d\.\d ms, \+(9\d|10\d)\.\d%", done.stderr)


def test_every_example_is_short_and_says_how_to_run_it() -> None:
    programs = sorted(EXAMPLES.glob("*.py"))
    assert len(programs) == 5
    for program in programs:
        text = program.read_text()
        assert len(text.splitlines()) <= 45, program
        assert f"examples/{program.name}" in text.split('"""')[1], program
