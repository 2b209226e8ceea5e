"""How every command of Triptych ends: an error of ours is one sentence on standard error, and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable

from rich.console import Console
from rich.text import Text

from triptych.errors import TriptychError


def run(command: Callable[[], None]) -> None:
    """Run a command line; exit 1 with one sentence on a `TriptychError`."""
    try:
        command()
    except TriptychError as error:
        Console(stderr=True, soft_wrap=True).print(Text.assemble(("error: ", "bold red"), str(error)))
        sys.exit(1)
