"""The small commands of the demo's developers."""

from __future__ import annotations

import sys
from collections.abc import Callable

import typer

from triptych.errors import TriptychError


def run(command: Callable[..., None]) -> None:
    """Run a function as a command line; an error that is meant for people is one sentence, and exit code 1."""
    try:
        typer.run(command)
    except TriptychError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {error.filename} cannot be used: {error.strerror}")
