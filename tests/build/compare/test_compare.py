"""The comparison of runtimes, end to end on generated boards, and what it refuses."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import openvino
import pytest
from rich.console import Console

from support import ROOT
from triptych.errors import BuildError, ContractError
from triptych_build.adapt import adapter as adapt
from triptych_build.adapt.adapter import Overrides
from triptych_build.compare import compare
from triptych_build.compare import measure as compare_measure
from triptych_build.compare import report as compare_report
from triptych_build.compare.compare import Contestant, Trial
from triptych_build.compare.measure import SCENARIOS
from triptych_build.compare.report import Comparison, Latency, Row
from triptych_build.verify.datasets import Dataset
from triptych_build.verify.metrics import Accuracy
from triptych_demo.detector import boards

DEMO = ROOT / "demo" / "pcb.onnx"
LABELS = [
    "PyTorch FP32",
    "TorchScript FP32",
    "ONNX Runtime FP32",
    "OpenVINO FP32",
    "OpenVINO BF16",
    "ONNX Runtime INT8",
    "OpenVINO INT8",
    "TensorRT FP16",
]


@pytest.fixture(scope="module")
def board_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight held-out boards with COCO labels."""
    folder = tmp_path_factory.mktemp("boards")
    named = [(f"{index}.jpg", boards.generate(seed=1000, index=index)) for index in range(8)]
    for name, board in named:
        (folder / name).write_bytes(board.jpeg)
    (folder / "instances.json").write_text(json.dumps(boards.coco_document(named)))
    return folder


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr("sys.argv", ["compare.py", *map(str, arguments)])
    compare.main()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_row_is_measured_or_says_why_not(board_set, tmp_path, monkeypatch, capsys):
    int8, plan = tmp_path / "int8.onnx", tmp_path / "model.plan"
    adapt.adapt_file(DEMO, int8, Overrides())  # int8 is how the caller calls it; the graph may be any adapted one
    plan.write_bytes(b"no plan")
    monkeypatch.setattr("rich.console.Console.width", 200)
    options = ["--data", board_set, "--frames", 10, "--rounds", 2, "--threads", 1, "--out", tmp_path / "out"]
    run(monkeypatch, DEMO, *options, "--int8", int8, "--plan", f"TensorRT FP16={plan}")

    figures = json.loads((tmp_path / "out" / "compare.json").read_text())
    rows = {row["label"]: row for row in figures["rows"]}
    assert list(rows) == LABELS
    assert (figures["images"], figures["frames"], figures["rounds"], figures["threads"]) == (8, 10, 2, 1)
    assert "compare.py" in figures["environment"]["command"]
    missing = {"TensorRT FP16"}
    if find_spec("onnx2torch") is None:
        missing |= {"PyTorch FP32", "TorchScript FP32"}
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        missing.add("OpenVINO BF16")
    assert {label for label, row in rows.items() if row["reason"]} == missing
    for label in set(LABELS) - missing:
        assert rows[label]["load_s"] > 0
        assert rows[label]["megabytes"] == pytest.approx(int8.stat().st_size / 1e6, rel=0.01)
        assert set(rows[label]["latency"]) == set(map(str, SCENARIOS))
        for latency in rows[label]["latency"].values():
            assert 0 < latency["p50_ms"] <= latency["p95_ms"]
        one = rows[label]["latency"]["1 stream x batch 1"]
        assert one["seconds"] >= 5 * one["p50_ms"] / 1000, "five of ten frames took no less than the median"
    exact = [rows[label]["accuracy"]["map50_95"] for label in LABELS if "FP32" in label and label not in missing]
    assert max(exact) - min(exact) < 0.002
    assert min(exact) > 0.6

    said = capsys.readouterr().out
    written = (tmp_path / "out" / "compare.md").read_text()
    for label in LABELS:
        assert f"| {label} |" in written
        assert label in said
    assert "TensorRT FP16 was not measured:" in written
    assert "TensorRT FP16:" in said
    assert ET.parse(tmp_path / "out" / "compare.svg").getroot().tag.endswith("svg")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--frames", 11], "--frames must be even and at least two for each of the 5 rounds, but got 11"),
        (["--frames", 4], "--frames must be even and at least two for each of the 5 rounds, but got 4"),
        (["--threads", 0], "must be at least 1, but got 0 and 5"),
        (["--plan", "A=nowhere.plan"], "there is no plan nowhere.plan"),
        (["--plan", "OpenVINO FP32=x"], "two rows would be called 'OpenVINO FP32'"),
        (["--runtimes", "tensorrt"], "needs a plan"),
        (["--int8", DEMO], "is not adapted"),
    ],
)
def test_what_it_refuses(board_set, monkeypatch, options, message):
    with pytest.raises(BuildError, match=message):
        run(monkeypatch, DEMO, "--data", board_set, *options)


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_measured(board_set, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(BuildError, match="name another folder with --out"):
        run(monkeypatch, DEMO, "--data", board_set, "--out", tmp_path / "file")


def test_images_alone_are_refused(board_set, tmp_path, monkeypatch):
    (tmp_path / "board.jpg").write_bytes((board_set / "0.jpg").read_bytes())
    with pytest.raises(BuildError, match="compare needs labels"):
        run(monkeypatch, DEMO, "--data", tmp_path)


def test_an_int8_model_of_other_classes_is_refused(board_set, tmp_path, monkeypatch):
    adapt.adapt_file(DEMO, tmp_path / "other.onnx", Overrides(names=list("abcdef")))
    with pytest.raises(BuildError, match="has other classes than the model"):
        run(monkeypatch, DEMO, "--data", board_set, "--int8", tmp_path / "other.onnx")


def test_options_of_adapt_come_too_late_for_an_adapted_model(board_set, tmp_path, monkeypatch):
    adapt.adapt_file(DEMO, tmp_path / "adapted.onnx", Overrides())
    with pytest.raises(BuildError, match="is adapted already"):
        run(monkeypatch, tmp_path / "adapted.onnx", "--data", board_set, "--order", "bgr")


def test_an_image_that_cannot_be_read_is_named(board_set, tmp_path):
    record = adapt.adapt_file(DEMO, tmp_path / "adapted.onnx", Overrides())
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    dataset = Dataset((tmp_path / "broken.jpg",), {"images": [{"id": 1}], "annotations": [], "categories": []})
    rows = compare.compare(
        [Contestant("ONNX Runtime FP32", "onnxruntime", tmp_path / "adapted.onnx")], record, dataset, Trial(1, 2, 1)
    )
    assert "broken.jpg: the 8 bytes cannot be read as an image" in rows[0].reason


def test_a_process_that_dies_costs_its_own_row_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(compare.sys, "executable", "/bin/false")
    job = compare_measure.Job("onnxruntime", "model.onnx", "f32", 1, {}, [], 0)
    assert compare.run_in_own_process(job) == {"error": "its process ended with code 1: it said nothing"}


def test_frames_are_shared_out_evenly_and_entirely():
    trial = Trial(threads=1, frames=250, rounds=4)
    shares = [trial.frames_of(number) for number in range(4)]
    assert shares == [64, 62, 62, 62]


@pytest.mark.parametrize(("streams", "batch"), SCENARIOS)
def test_streams_run_at_the_same_time_and_every_call_counts(streams, batch):
    seen: list[list[int]] = [[] for _ in range(streams)]

    def detector(number):
        def detect(pixels):
            seen[number].append(len(pixels))
            compare_measure.time.sleep(0.02)

        return detect

    latencies_ms, seconds = compare_measure.race(
        [detector(number) for number in range(streams)], np.zeros((4, 1, 1, 3), np.uint8), batch, 10
    )
    assert [counts[compare_measure.WARM_UP :] for counts in seen] == [[batch] * 10] * streams
    assert len(latencies_ms) == 10 * streams
    assert min(latencies_ms) >= 20
    assert 0.2 <= seconds < 0.4, "two streams that wait take no longer than one"


def test_a_stream_that_fails_ends_the_others():
    def broken(pixels):
        raise ContractError("one at a time")

    with pytest.raises(ContractError, match="one at a time"):
        compare_measure.race([broken, lambda pixels: None], np.zeros((4, 1, 1, 3), np.uint8), 1, 5)


def comparison(*named_latencies_ms: tuple[str, float, float]) -> Comparison:
    rows = [
        Row(
            label,
            "openvino",
            "f32",
            "CPU",
            "model.onnx",
            5.5,
            accuracy=Accuracy(map50_95, map50_95, 0.9, 0.9, {}),
            load_s=1.0,
            latency={str(scenario): Latency(latency_ms, latency_ms * 1.1, 250.0) for scenario in SCENARIOS},
        )
        for label, latency_ms, map50_95 in named_latencies_ms
    ]
    rows.append(Row("not here", "tensorrt", "f32", "GPU", "model.plan", 3.0, reason="there is no GPU"))
    where = {
        "cpu": "a CPU",
        "cores": 2,
        "gpu": None,
        "date": "2026-11-21",
        "python": "3",
        "versions": {},
        "command": "c",
    }
    return Comparison(8, 250, 5, 2, where | {"load_average_before": 0.1}, tuple(rows))


def test_the_tables_fit_in_eighty_columns(capsys):
    compare_report.show(comparison(("ONNX Runtime FP32", 104.52, 0.792)), Console(width=80))
    said = capsys.readouterr().out
    assert "…" not in said
    row = next(line for line in said.splitlines() if "115" in line)
    assert row.split() == ["ONNX", "Runtime", "FP32", *["105", "115", "250"] * 3]
    assert "there is no GPU" in said


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.3, "0.30"), (9.994, "9.99"), (9.996, "10.0"), (99.94, "99.9"), (99.96, "100"), (1234, "1234")],
)
def test_three_digits_count(value, text):
    assert compare_report.short(value) == text


def test_names_in_the_picture_do_not_cover_each_other(tmp_path):
    """Rows that are equally good and fast would write their names over each other."""
    rows = [(f"a runtime, number {number}", 30 + number * 0.1, 0.79) for number in range(6)]
    figure = compare_report.draw(comparison(*rows))
    names = [text for text in figure.axes[1].texts if text.get_text()]
    assert sorted(text.get_text() for text in names) == sorted(label for label, _, _ in rows)
    figure.canvas.draw()
    boxes = [compare_report.Text.get_window_extent(text) for text in names]
    assert not any(one.overlaps(other) for at, one in enumerate(boxes) for other in boxes[:at])
