"""`triptych verify`: limits from options, and a report that somebody else measured."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from support.commands import invoke
from support.detectors import raw_model
from support.reports import report
from triptych.cli import verify as command
from triptych.cli.verify import GateOptions
from triptych.errors import BuildError
from triptych_build.adapt.adapter import adapt_file
from triptych_build.verify import gate
from triptych_build.verify.limits import Check, Gate

FINE = Check("change when sent again (images)", 0, 0, "passed")
SLOW = Check("p95 latency (ms)", 25.5, 20, "refused")


run = partial(invoke, command.verify)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """An adapted model, and an image next to it."""
    adapt_file(raw_model(tmp_path / "source.onnx"), tmp_path / "adapted.onnx")
    (tmp_path / "image.png").write_bytes(b"never read here")
    return tmp_path / "adapted.onnx"


def measured(monkeypatch: pytest.MonkeyPatch, *checks: Check) -> list[tuple[str, Gate, str]]:
    """Have the gate measure these checks; return what it was asked."""
    asked: list[tuple[str, Gate, str]] = []

    def verify(address: str, source: Path, dataset: object, limits: Gate, *, precision: str, **_: object) -> Any:
        asked.append((address, limits, precision))
        return report(*checks)

    monkeypatch.setattr(gate, "verify", verify)
    return asked


def test_limits_of_the_options() -> None:
    assert GateOptions().gate("fp16") == Gate()
    assert GateOptions().gate("int8") == Gate.for_precision("int8")
    given = GateOptions(
        max_map_drop=2, max_class_drop=3, max_served_drop=4, max_score_change=5, min_agreement=0.9, max_p95_ms=40
    )
    assert given.gate("int8") == Gate(2, 3, 4, 5, 0.9, 40)


def test_what_passes(monkeypatch: pytest.MonkeyPatch, source: Path, tmp_path: Path) -> None:
    asked = measured(monkeypatch, FINE)
    words = [
        "--data",
        tmp_path,
        "--address",
        "here:1",
        "--precision",
        "int8",
        "--max-p95-ms",
        9,
        "--out",
        tmp_path / "o",
    ]
    result = run(source, *words)
    assert result.exit_code == 0, result.output
    assert asked == [("here:1", replace(Gate.for_precision("int8"), p95_ms=9), "int8")]
    assert result.output.endswith("passed: the deployed detector is within every limit of the gate\n")
    assert json.loads((tmp_path / "o" / "report.json").read_text())["passed"] is True
    assert (tmp_path / "o" / "report.md").read_text().startswith("# Verification: passed\n")


def test_a_refusal_is_an_error_after_the_table(monkeypatch: pytest.MonkeyPatch, source: Path, tmp_path: Path) -> None:
    measured(monkeypatch, FINE, SLOW)
    result = run(source, "--data", tmp_path, "--address", "here:1")
    assert isinstance(result.exception, BuildError)
    assert str(result.exception) == "refused: p95 latency (ms) is 25.5, the limit is 20"
    assert "FAILED" in result.output


def test_json_alone_on_standard_output(monkeypatch: pytest.MonkeyPatch, source: Path, tmp_path: Path) -> None:
    measured(monkeypatch, FINE)
    result = run(source, "--data", tmp_path, "--address", "here:1", "--json")
    assert json.loads(result.stdout)["checks"][0]["name"] == FINE.name
    assert "passed: " in result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--address", "here:1"], "name the images to verify with: --data LABELS"),
        (["--data", "d"], "name either a running server with --address, or a --model-repository to serve"),
        (["--data", "d", "--address", "a", "--model-repository", "m"], "name either a running server"),
        (["--data", "d", "--address", "a", "--min-agreement", "2"], "--min-agreement"),
        (["--data", "d", "--address", "a", "--precision", "fp8"], "--precision"),
    ],
)
def test_a_wrong_command_line(words: list[str], message: str) -> None:
    result = run("adapted.onnx", *words)
    assert result.exit_code == 2
    assert message in result.output
