"""The demo and a small deep detector, adapted and quantized once for all tests: nobody may change them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from support import ROOT
from support.detectors import SIDE, deep_model
from support.graphs import adapted, spec_of
from triptych_build.adapt.adapter import adapt_file
from triptych_build.adapt.onnx_file import read_onnx
from triptych_build.quantize.calibrate import Calibration, calibration_images, read_pixels
from triptych_build.quantize.quantizer import post_training
from triptych_demo.detector.boards import generate

HELD_OUT_SEED = 1000


@pytest.fixture
def pixels() -> NDArray[np.uint8]:
    return np.random.default_rng(7).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demo") / "adapted.onnx"
    adapt_file(ROOT / "demo" / "pcb.onnx", path)
    return path


@pytest.fixture(scope="session")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty small convolutions, one of which int8 harms."""
    return adapted(deep_model(tmp_path_factory.mktemp("deep") / "source.onnx"))


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six held-out boards."""
    directory = tmp_path_factory.mktemp("boards")
    for index in range(6):
        (directory / f"board_{index}.jpg").write_bytes(generate(HELD_OUT_SEED, index).jpeg)
    return directory


@pytest.fixture(scope="session")
def board_pixels(demo: Path, images: Path) -> NDArray[np.uint8]:
    return read_pixels(calibration_images(images), spec_of(demo))


@pytest.fixture(scope="session")
def quantized(demo: Path, images: Path) -> onnx.ModelProto:
    """The demo in int8, its ranges from four boards and `max`."""
    calibration = Calibration(calibration_images(images)[:4], "max")
    return post_training(read_onnx(demo), spec_of(demo), calibration).model


@pytest.fixture(scope="session")
def quantized_deep(deep: Path, images: Path) -> onnx.ModelProto:
    """The deep detector in int8, its ranges from four boards and `max`."""
    calibration = Calibration(calibration_images(images)[:4], "max")
    return post_training(read_onnx(deep), spec_of(deep), calibration).model
