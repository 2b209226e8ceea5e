"""`triptych compare`: its output, its files and its exit codes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from support.measured import made_up
from triptych.cli.compare import compare
from triptych.cli.console import OK, REFUSED, USAGE
from triptych.errors import ContractError
from triptych.measure import run_file
from triptych.measure.comparison import Comparison

Compare = Callable[..., Result]


@pytest.fixture
def run_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compare:
    """`triptych compare` in a directory with runs a, b (4x the detector), c (slower) and few (2 intervals)."""
    runs = {
        "a": made_up(1, 0.05),
        "b": made_up(2, 0.05, detector=20.0),
        "c": made_up(3, 0.05, slower=1.2),
        "a2": made_up(4, 0.05, slower=1.1),
        "a3": made_up(5, 0.05),
        "few": made_up(6, intervals=2),
    }
    for name, run in runs.items():
        run_file.write(tmp_path / f"{name}.json", run)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    app = typer.Typer()
    app.command()(compare)
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def test_each_run_is_compared_with_the_first(run_command: Compare) -> None:
    done = run_command("a.json", "b.json", "c.json")
    assert done.exit_code == OK, done.output
    assert "┃ against a" in done.stdout
    assert "b: detector 4.0x faster, pipeline 2.5x: detector still owns 50%" in done.stdout
    assert re.search(
        r"^c: detector 1\.2\dx slower, pipeline 1\.2\dx: detector still owns 80%$", done.stdout, re.MULTILINE
    )


def test_limits_set_the_exit_code(run_command: Compare) -> None:
    kept = run_command("a.json", "b.json", "--max-p95-regression", "5%", "--min-speedup", "2")
    assert kept.exit_code == OK, kept.output
    broken = run_command("a.json", "c.json", "--max-p95-regression", "5", "--max-rate-regression", "50%")
    assert broken.exit_code == REFUSED
    lines = [line for line in broken.stdout.splitlines() if line.startswith("limit broken: ")]
    assert len(lines) == 1
    assert lines[0].startswith("limit broken: c: p95 is longer by ")


def test_json_holds_all_of_it(run_command: Compare) -> None:
    done = run_command("a.json", "b.json", "few.json", "--json", "--names", "x,y,z")
    assert done.exit_code == OK, done.output
    assert "Infinity" not in done.stdout
    data = json.loads(done.stdout)
    first, second = data["comparisons"]
    assert (first["a"], first["b"], second["b"]) == ("x", "y", "z")
    assert first["latency"]["mean"]["significant"] is True
    assert first["amdahl"] == pytest.approx(2.5, rel=0.02)
    assert [owner["owner"] for owner in first["owners"]][:3] == ["preprocess", "detector", "postprocess"]
    assert second["latency"]["mean"]["high"] is None
    assert set(first) == {*Comparison.__dataclass_fields__, "amdahl_error_percent"}
    assert [remark["id"] for remark in data["remarks"]] == ["intervals-few", "drift-unseen"]
    assert "z has 2 intervals with answers" in data["remarks"][0]["text"]
    assert data["remarks"][0]["advice"]


def test_the_page_and_the_markdown_are_written(run_command: Compare, tmp_path: Path) -> None:
    done = run_command("a.json", "b.json", "--out", "page.html", "--markdown", "page.md")
    assert done.exit_code == OK, done.output
    for name in ("page.html", "page.md"):
        text = (tmp_path / name).read_text()
        assert "do not see what drifts from run to run" in text


def test_two_runs_of_a_side_that_disagree(run_command: Compare) -> None:
    two = run_command("a.json,a2.json", "b.json").stdout
    assert "a.json and a2.json, of one side, disagree by 0.9" in two
    assert "┃ a+a2 ┃" in " ".join(two.split())
    assert "disagree" not in run_command("a.json,a3.json", "b.json").stdout
    assert "disagree" not in run_command("a.json,a2.json,a3.json", "b.json").stdout


def test_what_drifts_between_runs_is_warned_of_until_it_is_measured(run_command: Compare) -> None:
    warning = "the 95% intervals do not see what drifts from run to run"
    assert warning in run_command("a.json", "b.json").stdout
    assert warning in run_command("a.json,a2.json,a3.json", "b.json").stdout
    assert warning not in run_command("a.json,a2.json,a3.json", "b.json,b.json,b.json").stdout


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["a.json"], "expected two runs or more"),
        (["a.json", "b.json", "--names", "x"], "expected 2 names, one for each side, but got 1: x"),
        (["a.json", "b.json", "--max-p50-regression", "much"], "expected a percentage of at least 0, such as 5%"),
        (["a.json", "b.json", "--max-p50-regression", "-5%"], "expected a percentage of at least 0, such as 5%"),
        (["a.json", "b.json", "--min-speedup", "0.9"], "must be above 1, but is 0.9"),
    ],
)
def test_a_wrong_command_line(run_command: Compare, arguments: list[str], reason: str) -> None:
    done = run_command(*arguments)
    assert done.exit_code == USAGE
    assert reason in " ".join(done.output.replace("│", "").split())


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["a.json", "none.json"], "none.json is not a run that can be read"),
        (["a.json", "old.json"], "must be a run of version 2, but its version is 1"),
        (["a.json", "b.json", "--changed", "tracker"], "no owner of time is called tracker"),
        (["a.json", "few.json", "--max-p50-regression", "5%"], "cannot be judged"),
    ],
)
def test_runs_that_cannot_be_compared(run_command: Compare, tmp_path: Path, arguments: list[str], reason: str) -> None:
    (tmp_path / "old.json").write_text('{"version": 1}')
    done = run_command(*arguments)
    assert isinstance(done.exception, ContractError)
    assert reason in str(done.exception)
    assert "\n" not in str(done.exception)


def test_runs_of_one_name_are_called_after_their_paths(run_command: Compare, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "a.json").rename(tmp_path / "other" / "b.json")
    done = run_command("b.json", "other/b.json")
    assert done.stdout.startswith("b.json: ")
    assert "\nother/b.json: " in done.stdout
