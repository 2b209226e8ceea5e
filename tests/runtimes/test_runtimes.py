"""Every runtime behind one interface: the same candidates as ONNX Runtime, and errors that say what to do."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
from numpy.typing import NDArray

from support import ROOT
from support.detectors import SIDE, raw_model
from triptych.errors import BuildError, ContractError
from triptych.runtimes import RUNTIMES, RuntimeEntry, check_pixels, open_runtime
from triptych.runtimes._tensorrt import LIBRARIES, builder_of
from triptych_build.adapt import adapter as adapt
from triptych_build.adapt.adapter import Overrides


@pytest.fixture
def pixels() -> NDArray[np.uint8]:
    return np.random.default_rng(7).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)


def adapted(tmp_path: Path) -> Path:
    adapt.adapt_file(raw_model(tmp_path / "source.onnx"), tmp_path / "adapted.onnx", Overrides())
    return tmp_path / "adapted.onnx"


class CoreWithoutBfloat16:
    def get_property(self, _device: str, _name: str) -> list[str]:
        return ["FP32", "INT8"]


def test_bfloat16_is_refused_where_the_cpu_lacks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triptych.runtimes.openvino.process_core", CoreWithoutBfloat16)
    with pytest.raises(BuildError, match=r"this CPU has no bfloat16 .*; use f32"):
        open_runtime("openvino", Path("model.onnx"), threads=1, precision="bf16")


def test_bfloat16_is_near_float32(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU has no bfloat16")
    model = adapted(tmp_path)
    exact = open_runtime("openvino", model, threads=1).detect(pixels)[..., 4]
    rough = open_runtime("openvino", model, threads=1, precision="bf16").detect(pixels)[..., 4]
    assert 1e-6 < np.abs(rough - exact).max() < 0.05


@pytest.mark.parametrize(
    ("name", "precision", "message"),
    [
        ("abacus", "f32", "there is no runtime 'abacus'; choose one of onnxruntime, openvino, tensorrt$"),
        ("openvino", "f8", "must be one of f32, bf16, but got 'f8'"),
        ("onnxruntime", "bf16", "'bf16' is an option of openvino; onnxruntime calculates as its file says"),
    ],
)
def test_what_is_refused(name: str, precision: str, message: str) -> None:
    with pytest.raises(BuildError, match=message):
        open_runtime(name, Path("model.onnx"), threads=1, precision=precision)


def test_a_runtime_that_is_not_installed_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "triptych.runtimes.tensorrt", raising=False)
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)  # PyTorch for GPUs has it
    with pytest.raises(BuildError, match=r"the runtime tensorrt is not installed .* run `pip install .*tensorrt"):
        open_runtime("tensorrt", Path("model.plan"), threads=1)


def test_a_runtime_that_does_not_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_runtime.py").write_text("raise OSError('libcudart.so.12: cannot open')")
    monkeypatch.syspath_prepend(tmp_path)
    broken = {"broken": RuntimeEntry("broken_runtime", "Broken")}
    with pytest.raises(BuildError, match=r"broken is installed but does not start: libcudart\.so\.12"):
        open_runtime("broken", Path("model.onnx"), threads=1, runtimes=broken)


def test_a_caller_may_bring_runtimes_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "echo_runtime.py").write_text(
        "class Echo:\n    def __init__(self, model, threads):\n        self.opened = model, threads\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    runtime: Any = open_runtime(
        "echo", Path("model.onnx"), threads=3, runtimes={"echo": RuntimeEntry("echo_runtime", "Echo")}
    )
    assert runtime.opened == (Path("model.onnx"), 3)


def test_every_runtime_has_a_module() -> None:
    modules = {path.stem for path in (ROOT / "client" / "triptych" / "runtimes").glob("[a-z]*.py")}
    assert modules == set(RUNTIMES)
    assert {entry.module for entry in RUNTIMES.values()} == {f"triptych.runtimes.{name}" for name in modules}


def test_other_pixels_are_refused() -> None:
    with pytest.raises(ContractError, match=r"pixels must be uint8 \(n, 4, 4, 3\), but got float32 \(1, 4, 4, 3\)"):
        check_pixels(np.zeros((1, 4, 4, 3), np.float32), (4, 4, 3))


@pytest.mark.parametrize("record", ["manifest.json", "model.plan.json"])
def test_a_plan_is_opened_by_the_library_that_built_it(tmp_path: Path, record: str) -> None:
    for builder in ("tensorrt", "tensorrt-rtx"):
        (tmp_path / record).write_text(json.dumps({"engine": {"builder": builder}}))
        assert builder_of(tmp_path / "model.plan") == builder
    (tmp_path / record).write_text('{"engine": null}')
    assert builder_of(tmp_path / "model.plan") in LIBRARIES, "whichever is there"
