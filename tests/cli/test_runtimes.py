"""`triptych runtimes`, on figures that nobody measured."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from support.commands import invoke
from support.comparisons import comparison
from triptych.cli import runtimes as command
from triptych.errors import BuildError
from triptych_build.adapt.adapter import Overrides
from triptych_build.compare import compare
from triptych_build.compare.cases import Trial
from triptych_build.compare.report import Comparison

run = partial(invoke, command.runtimes)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the command asks for; it gets a row and a missing one."""
    asked: list[dict[str, Any]] = []

    def compared(model: Path, data: Path, trial: Trial, **options: Any) -> Comparison:
        options.pop("progress")("ONNX Runtime FP32: 8 images", 6)
        asked.append({"model": model, "data": data, "trial": trial, **options})
        return comparison(("ONNX Runtime FP32", 104.5, 0.792))

    monkeypatch.setattr(compare, "compare_model", compared)
    return asked


def test_what_it_asks_for(calls: list[dict[str, Any]]) -> None:
    result = run("m.onnx", "--data", "labels", "--threads", 1)
    assert result.exit_code == 0, result.output
    options = ["--images", "i", "--runtimes", "openvino,tensorrt", "--int8", "q.onnx", "--plan", "TensorRT FP16=a.plan"]
    options += ["--plan", "B=b=c.plan", "--threads", "3", "--frames", "20", "--rounds", "2", "--order", "bgr"]
    assert run("m.onnx", "--data", "labels", *options).exit_code == 0
    plain, full = calls
    assert plain["trial"] == Trial(1, 250, 5)
    assert plain["overrides"] == Overrides()
    torch = "pytorch", "torchscript", "pytorch-gpu", "torchscript-gpu"
    assert plain["runtimes"] == ("onnxruntime", "openvino", "tensorrt", *torch)
    assert full == {
        "model": Path("m.onnx"),
        "data": Path("labels"),
        "trial": Trial(3, 20, 2),
        "images": Path("i"),
        "overrides": Overrides(order="bgr"),
        "int8": Path("q.onnx"),
        "plans": [("TensorRT FP16", Path("a.plan")), ("B", Path("b=c.plan"))],
        "runtimes": ("openvino", "tensorrt"),
    }


def test_tables_and_files(calls: list[dict[str, Any]], tmp_path: Path) -> None:
    result = run("m.onnx", "--data", "labels", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "not here: there is no GPU" in result.output
    assert json.loads((tmp_path / "out" / "runtimes.json").read_text())["rows"][0]["label"] == "ONNX Runtime FP32"
    assert "| ONNX Runtime FP32 |" in (tmp_path / "out" / "runtimes.md").read_text()
    assert ET.parse(tmp_path / "out" / "runtimes.svg").getroot().tag.endswith("svg")


def test_json_alone_on_standard_output(calls: list[dict[str, Any]], tmp_path: Path) -> None:
    result = run("m.onnx", "--data", "labels", "--json", "--out", tmp_path)
    assert json.loads(result.stdout)["rows"][1]["reason"] == "there is no GPU"


def test_nothing_measured_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = comparison(("a", 1.0, 0.5))
    nothing = replace(missing, rows=missing.rows[1:])
    monkeypatch.setattr(compare, "compare_model", lambda *arguments, **options: nothing)
    assert isinstance(run("m.onnx", "--data", "labels").exception, BuildError)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--frames", "11"], "--frames must be even and at least two for each of the 5 rounds, but got 11"),
        (["--threads", "0"], "--threads"),
        (["--runtimes", "abacus"], "there is no runtime 'abacus'; choose from onnxruntime, openvino"),
        (["--plan", "model.plan"], "expected a label and a file such as"),
        (["--order", "rbg"], "--order"),
    ],
)
def test_a_wrong_command_line(calls: list[dict[str, Any]], options: list[str], message: str) -> None:
    result = run("m.onnx", "--data", "labels", *options)
    assert result.exit_code == 2
    assert message in result.output
    assert not calls


def test_a_directory_that_cannot_be_made_is_refused_before_anything_is_measured(
    calls: list[dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    result = run("m.onnx", "--data", "labels", "--out", tmp_path / "file" / "out")
    assert isinstance(result.exception, BuildError)
    assert "name another directory with --out" in str(result.exception)
    assert not calls
