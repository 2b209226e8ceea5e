"""The comparison of runtimes on generated boards: each row in a process of its own, and what is refused."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import openvino
import pytest

from support import ROOT
from triptych.errors import BuildError
from triptych_build.adapt.adapter import Overrides, adapt_file
from triptych_build.compare.cases import Case, Trial
from triptych_build.compare.compare import compare_model, compare_runtimes, run_in_own_process
from triptych_build.compare.measure import SCENARIOS, Job
from triptych_build.compare.report import Comparison
from triptych_build.verify.truth import Dataset

DEMO = ROOT / "demo" / "pcb.onnx"


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demo") / "adapted.onnx"
    adapt_file(DEMO, path)
    return path


def compared(model: Path, data: Path, steps: list[str] | None = None, **options: object) -> Comparison:
    """Compare with few frames; `steps` gets the steps."""
    names: list[str] = [] if steps is None else steps
    return compare_model(
        model,
        data,
        Trial(1, 4, 2),
        progress=lambda step, total: names.append(f"{step} ({total})"),
        **options,  # type: ignore[arg-type]
    )


@pytest.mark.slow
def test_every_row_is_measured_or_says_why_not(board_set: Path, adapted: Path, tmp_path: Path) -> None:
    plan = tmp_path / "model.plan"
    plan.write_bytes(b"no plan")
    steps: list[str] = []
    # int8 is what the caller says; the graph may be any adapted one.
    options = {"int8": adapted, "plans": [("TensorRT FP16", plan)], "runtimes": ("onnxruntime", "openvino", "tensorrt")}
    comparison = compared(DEMO, board_set, steps, **options)
    rows = {row.label: row for row in comparison.rows}
    missing = {"TensorRT FP16"}
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        missing.add("OpenVINO BF16")
    assert {label for label, row in rows.items() if row.reason} == missing
    assert len(steps) == len(rows) * 3
    assert steps[0] == f"ONNX Runtime FP32: 8 images ({len(steps)})"
    for label in set(rows) - missing:
        row = rows[label]
        assert row.load_s is not None
        assert row.megabytes == pytest.approx(adapted.stat().st_size / 1e6, rel=0.01)
        assert set(row.latency) == set(map(str, SCENARIOS))
        assert all(0 < one.p50_ms <= one.p95_ms for one in row.latency.values())
    measured = [rows[label].accuracy for label in ("ONNX Runtime FP32", "OpenVINO FP32")]
    exact = [accuracy.map50_95 for accuracy in measured if accuracy]
    assert len(exact) == 2
    assert max(exact) - min(exact) < 0.002
    assert min(exact) > 0.6


def test_a_row_has_its_figures(board_set: Path, adapted: Path) -> None:
    steps: list[str] = []
    (row,) = compared(adapted, board_set, steps, runtimes=("onnxruntime",)).rows
    assert steps == [
        "ONNX Runtime FP32: 8 images (3)",
        "round 1 of 2: ONNX Runtime FP32 (3)",
        "round 2 of 2: ONNX Runtime FP32 (3)",
    ]
    assert (row.device, row.model, row.reason) == ("CPU", "adapted.onnx", "")
    assert row.accuracy is not None
    assert row.accuracy.map50_95 > 0.6
    assert set(row.latency) == set(map(str, SCENARIOS))


def test_images_alone_are_refused(board_set: Path, adapted: Path, tmp_path: Path) -> None:
    shutil.copyfile(board_set / "0.jpg", tmp_path / "board.jpg")
    with pytest.raises(BuildError, match="a comparison needs labels"):
        compared(adapted, tmp_path)


def test_an_int8_model_of_other_classes_is_refused(board_set: Path, adapted: Path, tmp_path: Path) -> None:
    adapt_file(DEMO, tmp_path / "other.onnx", Overrides(names=list("abcdef")))
    with pytest.raises(BuildError, match="has other classes than the model"):
        compared(adapted, board_set, int8=tmp_path / "other.onnx")
    with pytest.raises(BuildError, match="is not adapted; run `triptych adapt"):
        compared(adapted, board_set, int8=DEMO)


def test_options_of_adapt_come_too_late_for_an_adapted_model(board_set: Path, adapted: Path) -> None:
    with pytest.raises(BuildError, match="is adapted already"):
        compared(adapted, board_set, overrides=Overrides(order="bgr"))


def test_an_image_that_cannot_be_read_is_named(adapted: Path, tmp_path: Path) -> None:
    record = adapt_file(DEMO, tmp_path / "adapted.onnx")
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    dataset = Dataset((tmp_path / "broken.jpg",), {"images": [{"id": 1}], "annotations": [], "categories": []})
    cases = [Case("ONNX Runtime FP32", "onnxruntime", adapted)]
    (row,) = compare_runtimes(cases, record, dataset, Trial(1, 2, 1), lambda step: None)
    assert "broken.jpg: the 8 bytes cannot be read as an image" in row.reason


def test_a_process_that_dies_costs_its_own_row_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    job = Job("onnxruntime", "model.onnx", "f32", 1, {}, [], 0)
    assert run_in_own_process(job) == {"error": "its process ended with code 1: without a word"}
