"""TensorRT on a GPU: plans of every precision find what ONNX Runtime finds on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from support import ROOT
from triptych.runtimes import open_runtime
from triptych_build.adapt.adapter import adapt_file
from triptych_build.adapt.onnx_file import read_adapted, read_onnx
from triptych_build.quantize.calibrate import Calibration, calibration_images, read_pixels
from triptych_build.quantize.quantizer import quantize_file
from triptych_build.quantize.sensitivity import disagreement
from triptych_build.tensorrt import engine
from triptych_build.tensorrt.network import library
from triptych_build.tensorrt.options import Options, Profile
from triptych_demo.detector.boards import generate

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]

pytestmark = [pytest.mark.gpu, pytest.mark.slow, pytest.mark.timeout(900)]

HELD_OUT_SEED = 1000


@pytest.fixture(scope="module", autouse=True)
def gpu() -> None:
    pytest.importorskip("tensorrt", exc_type=ImportError)
    cuda = pytest.importorskip("cuda.bindings.runtime", exc_type=ImportError)
    error, count = cuda.cudaGetDeviceCount()
    if int(error) or not count:
        pytest.skip("there is no GPU")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo detector, and eighteen held-out boards beside it."""
    directory = tmp_path_factory.mktemp("gpu")
    for index in range(18):
        (directory / f"board_{index:02}.jpg").write_bytes(generate(HELD_OUT_SEED, index).jpeg)
    adapt_file(ROOT / "demo" / "pcb.onnx", directory / "adapted.onnx")
    return directory / "adapted.onnx"


@pytest.fixture(scope="module")
def pixels(demo: Path) -> Pixels:
    """More than the largest batch, so that it is cut up as well."""
    record = read_adapted(read_onnx(demo))
    assert record is not None
    return read_pixels(calibration_images(demo.parent), record.spec)


@pytest.fixture(scope="module")
def reference(demo: Path, pixels: Pixels) -> Floats:
    return open_runtime("onnxruntime", demo, threads=2).detect(pixels)


def graph_for(demo: Path, precision: str) -> Path:
    if precision != "int8":
        return demo
    path = demo.with_name("int8.onnx")
    quantize_file(demo, path, "int8", Calibration(calibration_images(demo.parent), "max"))
    return path


@pytest.mark.parametrize(("precision", "most"), [("fp32", 0.001), ("fp16", 0.01), ("bf16", 0.03), ("int8", 0.08)])
def test_a_plan_finds_what_onnx_runtime_finds(
    tmp_path: Path, demo: Path, pixels: Pixels, reference: Floats, precision: str, most: float
) -> None:
    if precision == "bf16" and not hasattr(library("tensorrt").BuilderFlag, "BF16"):
        version = library("tensorrt").__version__
        if int(version.split(".")[0]) < 10:
            pytest.skip(f"TensorRT {version} has no bf16")
    out = tmp_path / "model.plan"
    built = engine.build(graph_for(demo, precision), precision, out, Options(profiles=(Profile(1, 4, 16),)))
    assert out.stat().st_size == built.plan_bytes
    assert built.layers_from == "plan"
    assert built.layers.get(precision, 0) > 0
    assert built.inputs[0].shape == (-1, 640, 640, 3)
    assert built.compute_capabilities
    candidates = open_runtime("tensorrt", out, threads=1).detect(pixels)
    assert candidates.shape == reference.shape
    assert disagreement(reference, candidates) < most


@pytest.mark.parametrize("profiles", [(Profile(4, 4, 4),), (Profile(1, 1, 1), Profile(1, 8, 16))], ids=str)
def test_fixed_batches_and_several_profiles(
    tmp_path: Path, demo: Path, pixels: Pixels, reference: Floats, profiles: tuple[Profile, ...]
) -> None:
    out = tmp_path / "model.plan"
    engine.build(demo, "fp16", out, Options(profiles=profiles))
    runtime = open_runtime("tensorrt", out, threads=1)
    for count in (1, 3, 18):
        candidates = runtime.detect(pixels[:count])
        assert disagreement(reference[:count], candidates) < 0.01


def test_a_timing_cache_is_kept(tmp_path: Path, demo: Path) -> None:
    options = Options(profiles=(Profile(1, 1, 1),), timing_cache=tmp_path / "timing.cache")
    engine.build(demo, "fp16", tmp_path / "first.plan", options)
    assert (tmp_path / "timing.cache").stat().st_size > 0
    engine.build(demo, "fp16", tmp_path / "second.plan", options)
