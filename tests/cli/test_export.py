"""`triptych export`: a checkpoint to ONNX, an engine to its plan and its class names."""

from __future__ import annotations

import json
import os
import zipfile
from functools import partial
from pathlib import Path

import pytest

from support.commands import invoke
from triptych.cli.export import export
from triptych.errors import BuildError

run = partial(invoke, export)

PLAN = b"ftrt" + bytes(range(256)) * 20
METADATA = {"date": "2026-11-01T10:00:00", "task": "detect", "batch": 8, "names": {"0": "open", "1": "short"}}


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    path = tmp_path / "best.engine"
    header = json.dumps(METADATA).encode()
    path.write_bytes(len(header).to_bytes(4, "little") + header + PLAN)
    return path


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "best.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("best/data.pkl", b"weights")
    return path


@pytest.fixture
def yolo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A script in place of `yolo`, which writes its arguments as the ONNX."""
    path = tmp_path / "programs" / "yolo"
    path.parent.mkdir()
    path.write_text('#!/bin/sh\nfor word in "$@"; do case "$word" in model=*) m="${word#model=}";; esac; done\n')
    with path.open("a") as script:
        script.write('echo "$@" > "${m%.pt}.onnx"\n')
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")
    return path


def test_a_checkpoint_is_exported(tmp_path: Path, checkpoint: Path, yolo: Path) -> None:
    out = tmp_path / "model.onnx"
    done = run(checkpoint, "--out", out, "--size", "640x480")
    assert done.exit_code == 0, done.output
    assert f"best.pt is exported by your own Ultralytics ({yolo})" in done.output
    assert "imgsz=480,640" in out.read_text()


def test_an_engine_is_split(tmp_path: Path, engine: Path) -> None:
    plan, names = tmp_path / "model.plan", tmp_path / "names.txt"
    done = run(engine, "--out", plan, "--names-out", names)
    assert done.exit_code == 0, done.output
    assert plan.read_bytes() == PLAN
    assert names.read_text() == "open\nshort\n"
    for line in ("task: detect", "imgsz: unknown", "batch: 8", "date: 2026-11-01T10:00:00", "2 class names in"):
        assert line in done.output


def test_an_engine_without_an_output_is_described(tmp_path: Path, engine: Path) -> None:
    done = run(engine)
    assert done.exit_code == 0, done.output
    assert "task: detect" in done.output
    assert list(tmp_path.iterdir()) == [engine]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("best.pt", []),
        ("best.pt", ["--out", "a.onnx", "--names-out", "b.txt"]),
        ("best.pt", ["--out", "a.onnx", "--size", "640x"]),
        ("best.engine", ["--size", "640"]),
        ("best.onnx", ["--out", "a.onnx"]),
    ],
)
def test_a_wrong_command_line(name: str, words: list[str]) -> None:
    assert run(name, *words).exit_code == 2


def test_what_is_no_engine_is_refused(tmp_path: Path, engine: Path) -> None:
    engine.write_bytes(PLAN)
    done = run(engine, "--out", tmp_path / "model.plan")
    assert isinstance(done.exception, BuildError)
    assert not (tmp_path / "model.plan").exists()
