"""`triptych compare`: its output, its files and its exit codes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

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

A, B, C = (",".join(f"{side}{turn}.json" for turn in range(1, 5)) for side in "abc")
NAMES = ("--names", "a,b,c")


@pytest.fixture
def run_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compare:
    """`triptych compare` in a directory with runs a1 to a4, b1… (4x the detector) and c1… (slower), taken in turn."""
    kinds: dict[str, dict[str, Any]] = {"a": {}, "b": {"detector": 20.0}, "c": {"slower": 1.2}}
    for number, (turn, (name, changes)) in enumerate(product(range(1, 5), kinds.items())):
        run_file.write(tmp_path / f"{name}{turn}.json", made_up(number, 0.05, **changes))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    app = typer.Typer()
    app.command()(compare)
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def test_each_side_is_compared_with_the_first(run_command: Compare) -> None:
    done = run_command(A, B, C, *NAMES)
    assert done.exit_code == OK, done.output
    assert "┃ against a" in done.stdout
    assert "b: detector 4.0x faster, pipeline 2.5x: detector still owns 50%" in done.stdout
    assert re.search(
        r"^c: detector 1\.2\d?x slower, pipeline 1\.2\d?x: detector still owns 80%$", done.stdout, re.MULTILINE
    )
    assert "taken in turn" not in done.stdout
    assert "In parentheses: 95% intervals" in done.stdout


def test_limits_set_the_exit_code(run_command: Compare) -> None:
    kept = run_command(A, B, "--max-p95-regression", "5%", "--min-speedup", "2")
    assert kept.exit_code == OK, kept.output
    broken = run_command(A, C, "--names", "a,c", "--max-p95-regression", "5", "--max-rate-regression", "50%")
    assert broken.exit_code == REFUSED
    lines = [line for line in broken.stdout.splitlines() if line.startswith("refused: ")]
    assert len(lines) == 1
    assert lines[0].startswith("refused: c: p95 went from ")


@pytest.mark.parametrize("percentile", ["p50", "p90", "p95", "p99"])
def test_each_percentile_has_a_limit(percentile: str, run_command: Compare) -> None:
    done = run_command(A, C, "--names", "a,c", f"--max-{percentile}-regression", "5%")
    assert done.exit_code == REFUSED
    assert f"refused: c: {percentile} went from " in done.stdout


def test_limits_take_four_runs_of_each_side(run_command: Compare) -> None:
    done = run_command("a1.json,a2.json,a3.json", "b1.json", "--names", "a,b", "--min-speedup", "2")
    assert done.exit_code == REFUSED
    assert "pipeline 2.5x faster, which these runs cannot tell from chance" in done.stdout
    assert "refused: b: no limit can be judged: it takes 4 runs of each side" in done.stdout
    assert "missing: 1 of a, 3 of b" in done.stdout
    assert "In parentheses" not in done.stdout
    after = run_command("a1.json,a2.json,b1.json,b2.json", "a3.json,a4.json,b3.json,b4.json", "--min-speedup", "2")
    assert after.exit_code == REFUSED
    assert "were not taken in turn" in after.stdout


def test_json_holds_all_of_it(run_command: Compare) -> None:
    done = run_command(A, B, "c1.json", "--json", "--names", "x,y,z")
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
    assert [remark["id"] for remark in data["remarks"]] == ["chance-unknown"]
    assert data["remarks"][0]["text"].endswith("missing: 3 of z")
    assert data["remarks"][0]["advice"]


def test_the_page_and_the_markdown_are_written(run_command: Compare, tmp_path: Path) -> None:
    done = run_command("a1.json", "b1.json", "--out", "page.html", "--markdown", "page.md")
    assert done.exit_code == OK, done.output
    for name in ("page.html", "page.md"):
        assert "it takes 4 runs of each side, in turn" in (tmp_path / name).read_text()


def test_one_run_given_twice_is_refused(run_command: Compare) -> None:
    done = run_command("a1.json,a2.json,a1.json", "b1.json")
    assert isinstance(done.exception, ContractError)
    assert "a1.json and a1.json, of one side, are the same run" in str(done.exception)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["a1.json"], "expected two runs or more"),
        (["a1.json", "b1.json", "--names", "x"], "expected 2 names, one for each side, but got 1: x"),
        (["a1.json", "b1.json", "--max-p50-regression", "much"], "expected a percentage of at least 0, such as 5%"),
        (["a1.json", "b1.json", "--max-p50-regression", "-5%"], "expected a percentage of at least 0, such as 5%"),
        (["a1.json", "b1.json", "--min-speedup", "0.9"], "must be above 1, but is 0.9"),
    ],
)
def test_a_wrong_command_line(run_command: Compare, arguments: list[str], reason: str) -> None:
    done = run_command(*arguments)
    assert done.exit_code == USAGE
    assert reason in " ".join(done.output.replace("│", "").split())


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["a1.json", "none.json"], "none.json is not a run that can be read"),
        (["a1.json", "old.json"], "must be a run of version 2, but its version is 1"),
        (["a1.json", "b1.json", "--changed", "tracker"], "no owner of time is called tracker"),
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
    (tmp_path / "a1.json").rename(tmp_path / "other" / "b1.json")
    done = run_command("b1.json", "other/b1.json")
    assert done.stdout.startswith("b1.json: ")
    assert "\nother/b1.json: " in done.stdout
