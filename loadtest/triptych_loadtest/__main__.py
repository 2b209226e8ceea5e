"""`python -m triptych_loadtest ARGS`: `triptych loadtest ARGS` in a process that imports Locust first."""

import locust  # noqa: F401, I001  # first: it patches the standard library for gevent
import sys

import typer
from triptych.cli.console import run
from triptych.cli.loadtest import loadtest

app = typer.Typer(pretty_exceptions_enable=False)
app.command()(loadtest)


def main() -> None:
    """Run the command line."""
    run(lambda: app(sys.argv[1:], prog_name="triptych loadtest"))


if __name__ == "__main__":
    main()
