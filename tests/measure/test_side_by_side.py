"""Files of each side, compared with the first side."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.measured import made_up
from triptych.measure import run_file
from triptych.measure.limits import Limits
from triptych.measure.side_by_side import compare_files


@pytest.fixture
def paths(tmp_path: Path) -> list[list[Path]]:
    """Two runs of one side, and a slower one of another, in two directories."""
    files = {"one/a": made_up(1, 0.05), "one/b": made_up(2, 0.05), "two/a": made_up(3, 0.05, slower=1.5)}
    for name, run in files.items():
        run_file.write(tmp_path / f"{name}.json", run)
    return [[tmp_path / "one" / "a.json", tmp_path / "one" / "b.json"], [tmp_path / "two" / "a.json"]]


def test_sides_are_called_after_their_files(paths: list[list[Path]]) -> None:
    result = compare_files(paths, [], "detector", Limits())
    assert [side.name for side in result.sides] == ["a+b", "a"]
    assert result.sides[0].run.client.latencies.count == 400
    (a, _), (other,) = paths
    whole = compare_files([[a], [other]], [], "detector", Limits())
    assert [side.name for side in whole.sides] == [str(a), str(other)]


def test_limits_are_judged_for_each_side(tmp_path: Path) -> None:
    paths: list[list[Path]] = [[], [], []]
    for seed in range(12):
        paths[seed % 3].append(tmp_path / f"{seed}.json")
        run_file.write(paths[seed % 3][-1], made_up(seed, 0.02, slower=1.5 if seed % 3 == 1 else 1.0))
    result = compare_files(paths, ["x", "y", "z"], "detector", Limits({"p50": 20.0}))
    (sentence,) = result.refusals
    assert sentence.startswith("y: p50 went from ")
    assert [one.refusals for one in result.comparisons] == [[sentence], []]
    assert result.remarks == []


def test_too_few_runs_are_said_and_refuse_a_limit(paths: list[list[Path]]) -> None:
    assert compare_files(paths, ["x", "y"], "detector", Limits()).refusals == []
    result = compare_files(paths, ["x", "y"], "detector", Limits({"p50": 10.0}))
    (sentence,) = result.refusals
    assert sentence.endswith("missing: 2 of x, 3 of y")
    assert [remark.id for remark in result.remarks] == ["chance-unknown"]
