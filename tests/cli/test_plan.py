"""`triptych plan` on a file: the answer for people, for programs and for kustomize, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from support import ROOT
from support.measured import made_up, rates
from triptych.cli.plan import plan
from triptych.errors import MeasurementError
from triptych.measure import run_file, sweep_file
from triptych.measure.sweep import Series

app = typer.Typer()
app.command()(plan)


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A server that answers 40 images a second within 100 ms."""
    saved = sweep_file.read(ROOT / "tests" / "measure" / "data" / "sweep-1.json")
    series = [Series.of("as served", rates((20, 25), (40, 45), (60, 90)), None)]
    path = tmp_path / "sweep.json"
    elsewhere = replace(saved.environment, address="gpu:8001")
    sweep_file.write(path, replace(saved, series=series, environment=elsewhere, command=["triptych", "sweep"]))
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


def test_the_answer_comes_first_and_the_assumptions_after_it(sweep: Path) -> None:
    result = run(sweep, "--rate", 100, "--p95-ms", 100, "--headroom", "50%", "--price-per-hour", 2)
    lines = result.stdout.splitlines()
    assert result.exit_code == 0
    assert lines[0] == "5 servers for 100 images/s at a p95 of 100 ms"
    assert "that costs 10.00 an hour, and 27.78 for a million images" in lines
    assert sum(line.startswith("assuming that ") for line in lines) == 3


def test_the_answer_for_programs(sweep: Path) -> None:
    answer = json.loads(run(sweep, "--rate", 100, "--p95-ms", 100, "--spare", 1, "--json").stdout)
    assert (answer["servers"], answer["planned_per_s"], answer["cost_per_hour"]) == (5, 32, None)
    assert answer["capacity"]["images_per_s"] == 40
    assert answer["remarks"] == []


def test_when_to_scale_is_written_for_kustomize(sweep: Path, tmp_path: Path) -> None:
    path = tmp_path / "scaling.env"
    assert run(sweep, "--rate", 100, "--p95-ms", 100, "--scaling", path).exit_code == 0
    assert path.read_text().splitlines()[1:] == ["servers=4", "inflight=1.08"]


def test_a_run_far_from_the_limit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    run_file.write(path, made_up())
    assert isinstance(run(path, "--rate", 100, "--p95-ms", 200).exception, MeasurementError)


def test_no_headroom_of_everything(sweep: Path) -> None:
    result = run(sweep, "--rate", 100, "--p95-ms", 100, "--headroom", 100)
    assert result.exit_code == 2
    assert "expected less than 100%" in result.output
