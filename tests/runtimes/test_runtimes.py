"""Every runtime behind one interface: the same candidates as ONNX Runtime, and errors that say what to do."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest

from support import ROOT
from support.detectors import (
    SIDE,
    end_to_end_model,
    mmdeploy_model,
    objectness_model,
    query_model,
    raw_model,
    yolox_model,
)
from triptych.errors import BuildError, ContractError
from triptych.runtimes import INSTALL, RUNTIMES, check_pixels, open_runtime
from triptych.runtimes._tensorrt import LIBRARIES, builder_of
from triptych_build.adapt import adapter as adapt
from triptych_build.adapt.adapter import Overrides

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
def pixels() -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)


@pytest.fixture
def torch_runtimes() -> None:
    pytest.importorskip("torch")
    if find_spec("onnx2torch") is None:
        pytest.skip("needs onnx2torch")


def adapted(tmp_path: Path, make) -> Path:
    adapt.adapt_file(make(tmp_path / "source.onnx"), tmp_path / "adapted.onnx", Overrides())
    return tmp_path / "adapted.onnx"


@pytest.mark.usefixtures("torch_runtimes")
@pytest.mark.parametrize(
    ("make", "runtime"),
    [
        *(pytest.param(*head.values, "pytorch", id=f"{head.id}-pytorch") for head in [*HEADS, *OPEN_HEADS]),
        *(pytest.param(*head.values, "torchscript", id=f"{head.id}-torchscript") for head in HEADS),
    ],
)
def test_torch_gives_the_candidates_of_onnx_runtime(tmp_path, pixels, make, runtime):
    model = adapted(tmp_path, make)
    reference = open_runtime("onnxruntime", model, threads=1).detect(pixels)
    detector = open_runtime(runtime, model, threads=1)

    assert detector.input_shape == (SIDE, SIDE, 3)
    for count in (1, 3):
        candidates = detector.detect(pixels[:count])
        assert candidates.dtype == np.float32
        assert candidates.shape == reference[:count].shape
        assert np.abs(candidates - reference[:count]).max() < 1e-3


@pytest.mark.usefixtures("torch_runtimes")
@pytest.mark.parametrize("make", OPEN_HEADS)
def test_a_graph_that_depends_on_what_it_sees_is_not_traced(tmp_path, make):
    with pytest.raises(BuildError, match=r"cannot be traced for TorchScript.*use pytorch"):
        open_runtime("torchscript", adapted(tmp_path, make), threads=1)


@pytest.mark.usefixtures("torch_runtimes")
def test_an_operator_that_onnx2torch_lacks_is_named(tmp_path):
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
        open_runtime("pytorch", tmp_path / "det.onnx", threads=1)


@pytest.mark.usefixtures("torch_runtimes")
@pytest.mark.parametrize("runtime", ["pytorch", "torchscript"])
def test_torch_refuses_what_is_no_adapted_onnx(tmp_path, runtime):
    with pytest.raises(BuildError, match=r"takes no pixels; run `python build/adapt\.py"):
        open_runtime(runtime, raw_model(tmp_path / "source.onnx"), threads=1)
    (tmp_path / "text.onnx").write_text("no model")
    for path in (tmp_path / "text.onnx", tmp_path / "missing.onnx"):
        with pytest.raises(BuildError, match="cannot be read as ONNX"):
            open_runtime(runtime, path, threads=1)


@pytest.mark.usefixtures("torch_runtimes")
def test_onnx2torch_does_without_a_torchvision_that_does_not_start(tmp_path):
    """pip gives a torch without CUDA a torchvision with CUDA, whose import raises RuntimeError."""
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    program = (
        "import sys; from triptych.runtimes import _onnx2torch; assert 'torchvision' not in sys.modules;"
        "_onnx2torch.onnx2torch.node_converters.nms.torchvision.ops.nms()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert "needs a torchvision that fits this torch" in done.stderr.splitlines()[-1]


@pytest.mark.usefixtures("torch_runtimes")
@pytest.mark.parametrize("bounds", [(1, 7, 2), (-1, -(2**63), -2), (5, 1, -1), (-3, 2**63 - 1, 1)])
def test_slice_is_that_of_numpy(bounds):
    import torch

    from triptych_build.compare.onnx2torch import Slice

    data = np.arange(30).reshape(3, 10)
    starts, ends, steps = (torch.tensor([bound]) for bound in bounds)
    for axis in (1, -1):
        found = Slice()(torch.from_numpy(data), starts, ends, torch.tensor([axis]), steps).numpy()
        assert np.array_equal(found, data[:, slice(*bounds)])


def test_bfloat16_is_near_where_the_cpu_has_it_and_refused_elsewhere(tmp_path, pixels):
    model = adapted(tmp_path, raw_model)
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(BuildError, match="this CPU has no bfloat16"):
            open_runtime("openvino", model, threads=1, precision="bf16")
        return
    exact = open_runtime("openvino", model, threads=1).detect(pixels)[..., 4]
    rough = open_runtime("openvino", model, threads=1, precision="bf16").detect(pixels)[..., 4]
    assert 1e-6 < np.abs(rough - exact).max() < 0.05


@pytest.mark.parametrize(
    ("name", "precision", "message"),
    [
        ("abacus", "f32", "there is no runtime 'abacus'; choose one of onnxruntime, openvino, pytorch"),
        ("openvino", "f8", "must be one of f32, bf16, but got 'f8'"),
        ("onnxruntime", "bf16", "'bf16' is an option of openvino; onnxruntime calculates as its file says"),
    ],
)
def test_what_load_refuses(name, precision, message):
    with pytest.raises(BuildError, match=message):
        open_runtime(name, Path("model.onnx"), threads=1, precision=precision)


def test_a_runtime_that_is_not_installed_says_how_to_install_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "triptych.runtimes.onnxruntime", raising=False)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BuildError, match=r"not installed .* run `pip install onnxruntime`"):
        open_runtime("onnxruntime", Path("model.onnx"), threads=1)


def test_every_runtime_has_a_module():
    modules = {path.stem for path in (ROOT / "client" / "triptych" / "runtimes").glob("[a-z]*.py")}
    assert modules == set(RUNTIMES) == set(INSTALL)


def test_other_pixels_are_refused():
    with pytest.raises(ContractError, match=r"pixels must be uint8 \(n, 4, 4, 3\), but got float32 \(1, 4, 4, 3\)"):
        check_pixels(np.zeros((1, 4, 4, 3), np.float32), (4, 4, 3))


@pytest.mark.parametrize("beside", ["manifest.json", "model.plan.json"])
def test_a_plan_is_opened_by_the_library_that_built_it(tmp_path, beside):
    for builder in ("tensorrt", "tensorrt-rtx"):
        (tmp_path / beside).write_text(json.dumps({"engine": {"builder": builder}}))
        assert builder_of(tmp_path / "model.plan") == builder
    (tmp_path / beside).write_text('{"engine": null}')
    assert builder_of(tmp_path / "model.plan") in LIBRARIES, "whichever is there"
