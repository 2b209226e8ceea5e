"""`triptych ready`: its line and its exit code."""

from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

from triptych.cli.ready import ready
from triptych.serving import readiness
from triptych.serving.readiness import Readiness

app = typer.Typer()
app.command()(ready)


@pytest.mark.parametrize(("is_ready", "code"), [(True, 0), (False, 3)])
def test_one_line_and_the_exit_code(monkeypatch: pytest.MonkeyPatch, is_ready: bool, code: int) -> None:
    monkeypatch.setattr(
        readiness, "ask_ready", lambda address, timeout_s: Readiness(is_ready, f"{address} {timeout_s}")
    )
    result = CliRunner().invoke(app, ["--address", "here:1", "--timeout-s", "2"])
    assert (result.stdout, result.exit_code) == ("here:1 2.0\n", code)


def test_nobody_is_there(nobody: str) -> None:
    result = CliRunner().invoke(app, ["--address", nobody])
    assert result.exit_code == 3
    assert result.stdout.startswith("not ready: no server answers")
