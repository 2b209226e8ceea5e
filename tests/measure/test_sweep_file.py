"""The sweep file: what is written comes back, and what is no sweep is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.measured import users
from triptych.errors import ContractError
from triptych.measure import sweep_file
from triptych.measure.documents import to_json
from triptych.measure.run_file import Environment, ImageSet, ServedDetector
from triptych.measure.sweep import Budget, Series
from triptych.measure.sweep_file import Sweep

DATA = Path(__file__).parent / "data"


@pytest.fixture
def result() -> Sweep:
    environment = Environment("host:1", "a CPU", 2, [], {"python": "3.11"}, ServedDetector(1, "python", 2, 16))
    series = [Series.of("1 instance", users((1, 20, 50), (2, 30, 60)), Budget(110, "p95"))]
    return Sweep(
        "2026-01-02T03:04:05+00:00", environment, ImageSet(1, 2, "3"), 110, "p95", series, ["words"], ["triptych"]
    )


def test_what_is_written_comes_back(result: Sweep, tmp_path: Path) -> None:
    sweep_file.write(tmp_path / "sweep.json", result)
    assert sweep_file.read(tmp_path / "sweep.json") == result
    assert list(tmp_path.iterdir()) == [tmp_path / "sweep.json"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "is not a sweep that can be read"),
        ('{"version": 99, "series": []}', "must be a sweep of version 1, but its version is 99"),
        ("[]", "must be a sweep of version 1"),
        ('{"version": 1, "series": []}', "is not a whole sweep"),
    ],
)
def test_what_is_no_sweep_is_one_sentence(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "sweep.json").write_text(text)
    with pytest.raises(ContractError, match=reason):
        sweep_file.read(tmp_path / "sweep.json")


def test_a_sweep_that_cannot_be_written_is_one_sentence(result: Sweep, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ContractError, match="cannot be written"):
        sweep_file.write(tmp_path / "file" / "sweep.json", result)


def test_a_sweep_of_an_earlier_release_is_read() -> None:
    sweep = sweep_file.read(DATA / "sweep-1.json")
    assert [point.users for point in sweep.series[0].points] == [1, 2]
    assert sweep.series[0].points[0].batching_delay_us == 500
    assert sweep.environment.detector is not None
    assert sweep.environment.detector.manifest == {"precision": "int8", "adapted": {"source": "pcb.onnx"}}
    again = json.loads(json.dumps(to_json(sweep)))
    for point in again["series"][0]["points"]:
        assert point.pop("bounds_ms") == {}
    assert again == json.loads((DATA / "sweep-1.json").read_text())


@pytest.mark.parametrize("words", [["--batch", "8"], ["--batch=8"]])
def test_the_points_of_an_earlier_release_have_the_batch_of_the_command(words: list[str], tmp_path: Path) -> None:
    data = json.loads((DATA / "sweep-1.json").read_text())
    (tmp_path / "sweep.json").write_text(json.dumps({**data, "command": ["triptych", "sweep", *words]}))
    assert [point.batch for point in sweep_file.read(tmp_path / "sweep.json").series[0].points] == [8, 8]
