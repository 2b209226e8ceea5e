"""How every command of Triptych fails: one sentence on standard error, and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable

from rich.console import Console
from rich.text import Text

from triptych.errors import TriptychError


def print_error(error: TriptychError) -> None:
    """Say on standard error what went wrong."""
    Console(stderr=True, soft_wrap=True).print(Text.assemble(("error: ", "bold red"), str(error)))


def run(command: Callable[[], None]) -> None:
    """Run a command line; exit 1 with one sentence on a `TriptychError`, and where the machine refuses a file.

    Ctrl-C ends it with 130, as shells have it.
    """
    try:
        command()
    except TriptychError as error:
        print_error(error)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        if error.filename is None:
            raise
        print_error(TriptychError(f"{error.filename} cannot be used: {error.strerror}"))
        sys.exit(1)
