"""The `triptych` command.

Exit codes: 0 all is well, 1 what was asked could not be done, 2 the command line is wrong, 3 the server died.
"""

from __future__ import annotations

import typer

from triptych import __version__
from triptych.cli.compare import compare
from triptych.cli.console import run
from triptych.cli.detect import detect
from triptych.cli.doctor import doctor
from triptych.cli.models import activate, models
from triptych.cli.report import report
from triptych.cli.serve import serve
from triptych.cli.sweep import sweep
from triptych.cli.track import track

app = typer.Typer(
    help="Serve an object detector with Triton, and know where every millisecond goes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(serve)
app.command()(detect)
app.command()(track)
app.command()(models)
app.command()(activate)
app.command()(doctor)
app.command()(report)
app.command()(compare)
app.command()(sweep)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"triptych {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Say the version."),
) -> None:
    """Options that stand before the command."""


def main() -> None:
    """Run the command line."""
    run(app)
