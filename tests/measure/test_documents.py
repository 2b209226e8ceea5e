"""Files of two kinds, recognised by what they hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from triptych.errors import ContractError
from triptych.measure import run_file, sweep_file
from triptych.measure.documents import read_either
from triptych.measure.run_file import Run
from triptych.measure.sweep_file import Sweep

DATA = Path(__file__).parent / "data"


def test_a_run_and_a_sweep_are_recognised() -> None:
    assert isinstance(read_either(DATA / "run-2.json", run_file.FORMAT, sweep_file.FORMAT), Run)
    assert isinstance(read_either(DATA / "sweep-1.json", run_file.FORMAT, sweep_file.FORMAT), Sweep)


@pytest.mark.parametrize("text", ["{}", "[]", '{"version": 3}'])
def test_what_is_neither_is_held_against_the_first(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ContractError, match="must be a run of version 2"):
        read_either(tmp_path / "x.json", run_file.FORMAT, sweep_file.FORMAT)


def test_the_right_version_of_another_kind_of_file(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"version": 2}')
    with pytest.raises(ContractError, match="must be a run, but has no `client`"):
        run_file.read(tmp_path / "x.json")
