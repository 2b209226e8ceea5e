"""`triptych report`: a run as a page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from support.reports import make_run, make_sweep
from triptych.cli.console import OK, USAGE
from triptych.cli.report import report
from triptych.errors import ContractError
from triptych.measure import run_file, sweep_file

app = typer.Typer()
app.command()(report)


def test_it_writes_both(tmp_path: Path) -> None:
    run_file.write(tmp_path / "demo.json", make_run())
    arguments = [str(tmp_path / "demo.json"), "--markdown", str(tmp_path / "demo.md"), "--budget-ms", "1"]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == OK
    assert f"written to {tmp_path / 'demo.html'} and {tmp_path / 'demo.md'}" in result.output
    for name in ("demo.html", "demo.md"):
        assert "over the budget of 1 ms" in (tmp_path / name).read_text()


def test_a_sweep_has_a_page_too(tmp_path: Path) -> None:
    sweep_file.write(tmp_path / "sweep.json", make_sweep())
    result = CliRunner().invoke(app, [str(tmp_path / "sweep.json"), "--out", str(tmp_path / "page.html")])
    assert result.exit_code == OK
    assert "What more load costs" in (tmp_path / "page.html").read_text()


def test_it_refuses_what_it_cannot_show(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"version": 99}))
    with pytest.raises(ContractError, match="must be a run of version"):
        CliRunner().invoke(app, [str(tmp_path / "run.json")], catch_exceptions=False)
    assert CliRunner().invoke(app, [str(tmp_path / "run.json"), "--budget-ms", "0"]).exit_code == USAGE
