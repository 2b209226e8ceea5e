"""The `triptych` command: all commands in one place, each in a module of its own."""

from __future__ import annotations

from typing import Annotated

import typer

from triptych._version import __version__
from triptych.cli.adapt import adapt
from triptych.cli.build import build
from triptych.cli.bulk import bulk
from triptych.cli.certificates import certificates
from triptych.cli.compare import compare
from triptych.cli.console import EXIT_CODES, run
from triptych.cli.demo import demo
from triptych.cli.detect import detect
from triptych.cli.doctor import doctor
from triptych.cli.engine import engine
from triptych.cli.export import export
from triptych.cli.init import init
from triptych.cli.loadtest import loadtest
from triptych.cli.models import activate, models
from triptych.cli.overhead import overhead
from triptych.cli.plan import plan
from triptych.cli.profile import profile
from triptych.cli.publish import publish
from triptych.cli.quantize import quantize
from triptych.cli.ready import ready
from triptych.cli.report import report
from triptych.cli.runtimes import runtimes
from triptych.cli.serve import serve
from triptych.cli.sweep import sweep
from triptych.cli.track import track
from triptych.cli.tune import tune
from triptych.cli.verify import verify

COMMANDS = {
    "Start": (init, demo, doctor),
    "Build": (build,),
    "Build, step by step": (export, adapt, quantize, engine, verify, publish, runtimes),
    "Serve": (serve, certificates, ready, models, activate),
    "Detect": (detect, bulk, track),
    "Measure": (loadtest, sweep, tune, overhead, profile, compare, report, plan),
}
"""Every command, by its heading in `triptych --help`."""

_CODES = "; ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items())

app = typer.Typer(
    help="Serve an object detector with Triton, and know where every millisecond goes.",
    epilog=f"Exit codes of every command: {_CODES}.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for heading, commands in COMMANDS.items():
    for command in commands:
        app.command(rich_help_panel=heading)(command)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"triptych {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options that stand before the command."""


def main() -> None:
    """Run the command line."""
    run(app)
