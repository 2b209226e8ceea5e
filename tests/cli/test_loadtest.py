"""`triptych loadtest`: its options, how it starts again for Locust, and what it prints."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from triptych.cli.console import USAGE
from triptych.cli.loadtest import loadtest

app = typer.Typer()
app.command()(loadtest)


def run(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "400"}).invoke(app, arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--poisson"], "poisson needs a rate"),
        (["--rate", "2", "--fps", "3"], "one of them 0"),
        (["--rate", "-1"], "must be at least 0"),
        (["--users", "0"], "must be at least 1"),
        (["--processes", "0"], "must be at least 1"),
        (["--intervals", "0"], "must be at least 1"),
        (["--batch", "17"], "a batch must be of 1 to 16 images"),
        (["--sizes", "large"], "large"),
        (["--sizes", "9999x9999"], "9999x9999"),
        (["--shape", "wave"], "wave"),
        (["--duration-s", "0"], "must be above 0 seconds"),
        (["--warmup-s", "-1"], "the warm-up at least 0"),
        (["--address", "http://127.0.0.1:8001"], "the address must be host:port"),
        (["--budget-ms", "0"], "--budget-ms"),
        (["--out", "run.html"], "run.json"),
    ],
)
def test_a_wrong_command_line_is_refused_before_anything_starts(arguments: list[str], message: str) -> None:
    result = run("--images", "DIR", *arguments)
    assert result.exit_code == USAGE
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_images_are_required() -> None:
    result = run()
    assert result.exit_code == USAGE
    assert "--images" in result.stderr


def test_it_starts_again_where_locust_is_not_the_first_import(monkeypatch: pytest.MonkeyPatch) -> None:
    class Replaced(Exception):
        """The process is another program now."""

    commands: list[list[str]] = []

    def replace(_path: str, command: list[str]) -> None:
        commands.append(command)
        raise Replaced

    monkeypatch.setattr("os.execv", replace)
    monkeypatch.delitem(sys.modules, "locust", raising=False)
    arguments = ["--images", "DIR", "--sizes", "64x48,32x32", "--rate", "3"]
    monkeypatch.setattr(sys, "argv", ["triptych", "loadtest", *arguments])
    with pytest.raises(Replaced):
        CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert commands == [[sys.executable, "-m", "triptych_loadtest", *arguments]]


def test_help_names_every_group(tmp_path: Path) -> None:
    result = run("--help")
    assert result.exit_code == 0
    for heading in ("Load", "Measurement", "Limits"):
        assert f"─ {heading} " in result.stdout
