"""`triptych quantize`: its options, what it prints, and how it ends."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import pytest
from PIL import Image

from support.commands import invoke
from support.detectors import raw_model
from support.graphs import adapted
from triptych.cli import quantize as command
from triptych.cli.options import Words
from triptych.cli.quantize import Narrow, QuantizeOptions, quantize
from triptych.errors import BuildError
from triptych_build.quantize.calibrate import Calibration, Method
from triptych_build.quantize.precision import PRECISIONS, precision_of

run = partial(invoke, quantize)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return adapted(raw_model(tmp_path_factory.mktemp("model") / "source.onnx"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("images")
    for number in range(3):
        noise = np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(directory / f"{number}.png")
    return directory


def test_the_choices_are_the_quantizer_s() -> None:
    assert Method == command.Method
    assert get_args(Narrow) == PRECISIONS[1:]


def test_the_options_are_a_calibration(images: Path) -> None:
    assert QuantizeOptions().calibration() is None
    options = QuantizeOptions(images, "max", Words(("/head/*", "Conv_3")), scan=True)
    files = tuple(sorted(images.iterdir()))
    assert options.calibration() == Calibration(files, "max", ("/head/*", "Conv_3"), scan=True)


def test_int8_from_images(tmp_path: Path, model: Path, images: Path) -> None:
    out = tmp_path / "int8.onnx"
    words = ["--precision", "int8", "--calibration", str(images), "--method", "max", "--out", str(out)]
    done = run(model, *words)
    assert done.exit_code == 0, done.output
    assert done.output.splitlines() == [
        "quantize: only 3 calibration images; 200 or more are advised",
        "quantize: 1 of 1 layers in int8",
        f"quantize: {out} in int8, 0.0 MB",
    ]
    assert precision_of(onnx.load(out)) == "int8"


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_narrow_precision(tmp_path: Path, model: Path, precision: str) -> None:
    out = tmp_path / "narrow.onnx"
    done = run(model, "--precision", precision, "--out", out)
    assert done.exit_code == 0, done.output
    assert precision_of(onnx.load(out)) == precision


@pytest.mark.parametrize(
    "words",
    [
        ["--precision", "fp32"],
        ["--precision", "int8", "--method", "minmax"],
        ["--precision", "int8", "--exclude", "a,,b"],
        ["--precision", "int8", "--scan"],
        ["--precision", "int8", "--exclude", "a"],
        ["--precision", "bf16", "--calibration", "."],
    ],
)
def test_a_bad_value_is_a_wrong_command_line(tmp_path: Path, model: Path, words: list[str]) -> None:
    done = run(model, "--out", tmp_path / "out.onnx", *words)
    assert done.exit_code == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [[], ["--calibration", "nowhere"]])
def test_what_cannot_be_quantized_is_refused(tmp_path: Path, model: Path, words: list[str]) -> None:
    out = tmp_path / "out.onnx"
    done = run(model, "--precision", "int8", "--out", out, *words)
    assert isinstance(done.exception, BuildError)
    assert "--calibration" in str(done.exception)
    assert not out.exists()
