"""`triptych report`: a run or a sweep as a page."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import pytest

from support import ROOT
from support.commands import invoke
from triptych.cli.console import OK, USAGE
from triptych.cli.report import report
from triptych.errors import ContractError

DATA = ROOT / "tests" / "measure" / "data"


run = partial(invoke, report)


@pytest.mark.parametrize("name", ["run-2.json", "sweep-1.json", "profile-1.json"])
def test_the_page_is_next_to_the_file_unless_it_is_named(tmp_path: Path, name: str) -> None:
    file = shutil.copy(DATA / name, tmp_path)
    done = run(file)
    assert done.exit_code == OK, done.output
    page = (tmp_path / name).with_suffix(".html")
    assert done.stdout == f"written to {page}\n"
    out, markdown = tmp_path / "page.html", tmp_path / "page.md"
    done = run(file, "--out", out, "--markdown", markdown)
    assert done.stdout == f"written to {out} and {markdown}\n"
    assert out.read_text() == page.read_text()
    assert ("What more load costs" in out.read_text()) == name.startswith("sweep")
    assert markdown.read_text().startswith("#")


def test_a_budget(tmp_path: Path) -> None:
    assert run(DATA / "run-2.json", "--out", tmp_path / "page.html", "--budget-ms", 50).exit_code == OK
    assert "over the budget of 50 ms at p95" in (tmp_path / "page.html").read_text()


def test_a_budget_of_nothing_is_a_wrong_command_line() -> None:
    assert run(DATA / "run-2.json", "--budget-ms", 0).exit_code == USAGE


def test_what_is_neither_run_nor_sweep(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    done = run(tmp_path / "x.json")
    assert isinstance(done.exception, ContractError)
    assert "must be a run of version 2" in str(done.exception)
