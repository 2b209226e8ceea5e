"""PyTorch and TorchScript, which only the comparison runs: the same candidates as ONNX Runtime, and clear errors."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from support.detectors import (
    SIDE,
    end_to_end_model,
    mmdeploy_model,
    objectness_model,
    query_model,
    raw_model,
    yolox_model,
)
from triptych.errors import BuildError
from triptych.runtimes import Runtime, open_runtime
from triptych_build.adapt import adapter as adapt
from triptych_build.adapt.adapter import Overrides
from triptych_build.compare.runtimes import RUNTIMES

torch = pytest.importorskip("torch")
if find_spec("onnx2torch") is None:  # importing it needs a torchvision that fits, which the runtime does without
    pytest.skip("needs onnx2torch", allow_module_level=True)

from triptych_build.compare.onnx2torch import Slice  # noqa: E402
from triptych_build.compare.pytorch import PyTorchRuntime  # noqa: E402
from triptych_build.compare.torchscript import TorchScriptRuntime  # noqa: E402

MakeModel = Callable[[Path], Path]

HEADS = [
    pytest.param(raw_model, id="raw"),
    pytest.param(partial(raw_model, opset=13), id="raw-opset-13"),
    pytest.param(partial(raw_model, opset=18), id="raw-opset-18"),
    pytest.param(partial(raw_model, opset=20), id="raw-opset-20"),
    pytest.param(yolox_model, id="yolox"),
    pytest.param(objectness_model, id="objectness"),
    pytest.param(end_to_end_model, id="end-to-end"),
    pytest.param(query_model, id="query"),
    pytest.param(partial(query_model, opset=19), id="query-opset-19"),
    pytest.param(mmdeploy_model, id="mmdeploy"),
]

OPEN_HEADS = [
    pytest.param(partial(end_to_end_model, open_count=True), id="end-to-end-open"),
    pytest.param(partial(mmdeploy_model, open_count=True), id="mmdeploy-open"),
]


@pytest.fixture
def pixels() -> NDArray[np.uint8]:
    return np.random.default_rng(7).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)


def adapted(tmp_path: Path, make: MakeModel) -> Path:
    adapt.adapt_file(make(tmp_path / "source.onnx"), tmp_path / "adapted.onnx", Overrides())
    return tmp_path / "adapted.onnx"


def open_any(name: str, model: Path) -> Runtime:
    return open_runtime(name, model, threads=1, runtimes=RUNTIMES)


@pytest.mark.parametrize(
    ("make", "runtime"),
    [
        *(pytest.param(*head.values, "pytorch", id=f"{head.id}-pytorch") for head in [*HEADS, *OPEN_HEADS]),
        *(pytest.param(*head.values, "torchscript", id=f"{head.id}-torchscript") for head in HEADS),
    ],
)
def test_torch_gives_the_candidates_of_onnx_runtime(
    tmp_path: Path, pixels: NDArray[np.uint8], make: MakeModel, runtime: str
) -> None:
    model = adapted(tmp_path, make)
    reference = open_any("onnxruntime", model).detect(pixels)
    detector = open_any(runtime, model)

    assert detector.input_shape == (SIDE, SIDE, 3)
    for count in (1, 3):
        candidates = detector.detect(pixels[:count])
        assert candidates.dtype == np.float32
        assert candidates.shape == reference[:count].shape
        assert np.abs(candidates - reference[:count]).max() < 1e-3


@pytest.mark.parametrize("module", ["pytorch", "torchscript"])
def test_in_float16_the_candidates_are_near(tmp_path: Path, pixels: NDArray[np.uint8], module: str) -> None:
    """As on a GPU, with the CPU in its place: torch's autocast is the same."""
    model = adapted(tmp_path, raw_model)
    exact = open_any("onnxruntime", model).detect(pixels)
    make = {"pytorch": PyTorchRuntime, "torchscript": TorchScriptRuntime}[module]
    rough = make(model, 1, "f16").detect(pixels)
    assert rough.dtype == np.float32
    assert 1e-6 < np.abs(rough[..., 4] - exact[..., 4]).max() < 0.01


@pytest.mark.parametrize("runtime", ["pytorch-gpu", "torchscript-gpu"])
def test_a_torch_that_sees_no_gpu_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BuildError, match=r"^torch 2.* sees no GPU here; install a torch with CUDA"):
        open_any(runtime, tmp_path / "adapted.onnx")


def test_a_precision_that_torch_has_not(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="torch's precision must be one of f32, f16, but got 'bf16'"):
        PyTorchRuntime(tmp_path / "adapted.onnx", 1, precision="bf16")


@pytest.mark.parametrize("make", OPEN_HEADS)
def test_a_graph_that_depends_on_what_it_sees_is_not_traced(tmp_path: Path, make: MakeModel) -> None:
    with pytest.raises(BuildError, match=r"cannot be traced for TorchScript.*use pytorch"):
        open_any("torchscript", adapted(tmp_path, make))


def test_an_operator_that_onnx2torch_lacks_is_named(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        detector (uint8[N, 4, 4, 3] pixels) => (float[N, 3] candidates) {
            floats = Cast <to = 1> (pixels)
            planes = Transpose <perm = [0, 3, 1, 2]> (floats)
            candidates = Det (planes)
        }"""
    )
    onnx.save(model, tmp_path / "det.onnx")
    with pytest.raises(BuildError, match="no converter for Det of opset 17"):
        open_any("pytorch", tmp_path / "det.onnx")


@pytest.mark.parametrize("runtime", ["pytorch", "torchscript"])
def test_torch_refuses_what_is_not_an_adapted_onnx(tmp_path: Path, runtime: str) -> None:
    with pytest.raises(BuildError, match="takes no pixels; run `"):
        open_any(runtime, raw_model(tmp_path / "source.onnx"))
    (tmp_path / "text.onnx").write_text("no model")
    for path in (tmp_path / "text.onnx", tmp_path / "missing.onnx"):
        with pytest.raises(BuildError, match="cannot be read as ONNX"):
            open_any(runtime, path)


def test_onnx2torch_does_without_a_torchvision_that_does_not_start(tmp_path: Path) -> None:
    """pip gives a torch without CUDA a torchvision with CUDA, whose import raises RuntimeError."""
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    program = (
        "import sys; from triptych_build.compare import onnx2torch; assert 'torchvision' not in sys.modules;"
        "onnx2torch.onnx2torch.node_converters.nms.torchvision.ops.nms()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert "needs a torchvision that fits this torch" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("bounds", [(1, 7, 2), (-1, -(2**63), -2), (5, 1, -1), (-3, 2**63 - 1, 1)])
def test_slice_is_that_of_numpy(bounds: tuple[int, int, int]) -> None:
    data = np.arange(30).reshape(3, 10)
    starts, ends, steps = (torch.tensor([bound]) for bound in bounds)
    for axis in (1, -1):
        part = Slice()(torch.from_numpy(data), starts, ends, torch.tensor([axis]), steps).numpy()
        assert np.array_equal(part, data[:, slice(*bounds)])
