"""`triptych adapt`: its options, what it prints, and how it ends."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import get_args

import onnx
import pytest

from support.commands import invoke
from support.detectors import raw_model, yolox_model
from support.graphs import record_of
from triptych.cli import adapt as command
from triptych.cli.adapt import AdaptOptions, Head, adapt
from triptych.cli.options import Size, Triple
from triptych.errors import BuildError
from triptych_build.adapt.adapter import Overrides
from triptych_build.adapt.heads import HEADS, Order

run = partial(invoke, adapt)


def test_the_choices_are_the_adapter_s() -> None:
    assert list(get_args(Head)) == [head.name for head in HEADS]
    assert Order == command.Order


def test_the_options_are_overrides(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("a\nb\n")
    assert AdaptOptions().overrides() == Overrides()
    options = AdaptOptions(
        head="end-to-end",
        size=Size((640, 480)),
        names=tmp_path / "names.txt",
        order="bgr",
        mean=Triple((1.0, 2.0, 3.0)),
        placement="top_left",
        keep_batch=True,
    )
    assert options.overrides() == Overrides(
        head="end-to-end",
        size=(640, 480),
        names=["a", "b"],
        order="bgr",
        mean=(1.0, 2.0, 3.0),
        placement="top_left",
        keep_batch=True,
    )


def test_it_writes_the_adapted_model_and_says_what_it_is(tmp_path: Path) -> None:
    out = tmp_path / "adapted.onnx"
    words = ["--order", "bgr", "--std", "2", "--pad-value", "0", "--placement", "stretch", "--iou-threshold", "1"]
    done = run(raw_model(tmp_path / "source.onnx"), "--out", out, *words)
    assert done.exit_code == 0, done.output
    assert done.output.startswith(
        "adapt: head raw, 5 classes, 64x64, bgr\n       boxes are centers in pixels\n       stretch letterbox"
    )
    record = record_of(onnx.load(out))
    assert record.normalization.std == (2.0, 2.0, 2.0)
    assert (record.spec.placement, record.spec.pad_value, record.spec.iou_threshold) == ("stretch", 0, 1.0)


@pytest.mark.parametrize("words", [[], ["--keep-batch"]])
def test_a_fixed_batch_is_opened_or_kept(tmp_path: Path, words: list[str]) -> None:
    out = tmp_path / "adapted.onnx"
    done = run(yolox_model(tmp_path / "source.onnx"), "--out", out, *words)
    assert done.exit_code == 0, done.output
    assert ("stays fixed at 1" if words else "is dynamic now") in done.output
    assert record_of(onnx.load(out)).batch_kept == bool(words)


@pytest.mark.parametrize(
    "words",
    [
        ["--head", "yolo"],
        ["--size", "640x"],
        ["--order", "rbg"],
        ["--scale", "one"],
        ["--mean", "1,2"],
        ["--std", "1,0,1"],
        ["--placement", "left"],
        ["--pad-value", "256"],
        ["--score-threshold", "1.5"],
        ["--iou-threshold", "-1"],
    ],
)
def test_a_bad_value_is_a_wrong_command_line(tmp_path: Path, words: list[str]) -> None:
    out = tmp_path / "adapted.onnx"
    done = run(raw_model(tmp_path / "source.onnx"), "--out", out, *words)
    assert done.exit_code == 2
    assert not out.exists()


def test_what_cannot_be_adapted_is_refused(tmp_path: Path) -> None:
    done = run(tmp_path / "gone.onnx", "--out", tmp_path / "out.onnx")
    assert isinstance(done.exception, BuildError)
    names = ["--names", str(tmp_path / "gone.txt")]
    done = run(raw_model(tmp_path / "a.onnx"), "--out", tmp_path / "out.onnx", *names)
    assert isinstance(done.exception, BuildError)
