"""A command of `triptych` in this process, where a process of its own would show nothing more."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from collections.abc import Callable
from unittest import mock

import typer
from typer.testing import CliRunner, Result

from triptych.cli.app import main


def triptych(*words: object) -> subprocess.CompletedProcess[str]:
    """Run `triptych WORDS` to its end; return its exit code and what it printed."""
    arguments = ["triptych", *map(str, words)]
    out, errors = io.StringIO(), io.StringIO()
    code = 0
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(errors),
        mock.patch.object(sys, "argv", arguments),
    ):
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), errors.getvalue())


def invoke(command: Callable[..., None], *words: object, columns: int = 200) -> Result:
    """Run one command on a terminal of so many columns; its error is the result's exception."""
    app = typer.Typer()
    app.command()(command)
    return CliRunner(env={"COLUMNS": str(columns)}).invoke(app, list(map(str, words)))
