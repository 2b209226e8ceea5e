"""`triptych export`: a checkpoint to ONNX, an engine to its plan and its class names."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest

from support.commands import invoke
from support.ultralytics import METADATA, PLAN, make_checkpoint, make_engine
from triptych.cli.export import export
from triptych.errors import BuildError

run = partial(invoke, export)


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    return make_engine(tmp_path, {key: value for key, value in METADATA.items() if key != "imgsz"})


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path)


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
    assert names.read_text() == "open\nshort\nburr\n"
    for line in ("task: detect", "imgsz: unknown", "batch: 8", "date: 2026-11-01T10:00:00", "3 class names in"):
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
