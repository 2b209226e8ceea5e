"""`triptych ready`: its line and its exit code."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from triptych.cli.ready import ready
from triptych.serving import readiness
from triptych.serving.readiness import Readiness
from triptych.wire.credentials import Credentials

app = typer.Typer()
app.command()(ready)


@pytest.mark.parametrize(("is_ready", "code"), [(True, 0), (False, 3)])
def test_one_line_and_the_exit_code(monkeypatch: pytest.MonkeyPatch, is_ready: bool, code: int) -> None:
    monkeypatch.setattr(readiness, "ask_ready", lambda *asked: Readiness(is_ready, str(asked)))
    result = CliRunner().invoke(app, ["--address", "here:1", "--timeout-s", "2", "--ca", "a.pem"])
    expected = ("here:1", 2.0, Credentials(ca=Path("a.pem")))
    assert (result.stdout, result.exit_code) == (f"{expected}\n", code)


def test_nobody_is_there(nobody: str) -> None:
    result = CliRunner().invoke(app, ["--address", nobody])
    assert result.exit_code == 3
    assert result.stdout.startswith("not ready: no server answers")
