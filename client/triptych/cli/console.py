"""How every command ends: one sentence on standard error, and an exit code that means something."""

from __future__ import annotations

import io
import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text

from triptych import opencv
from triptych.errors import ServerCrashed, ServerUnavailable, TriptychError
from triptych.escape import ESCAPE

OK = 0
REFUSED = 1
USAGE = 2
SERVER_DEAD = 3
INTERRUPTED = 130

EXIT_CODES = {
    OK: "done",
    REFUSED: "refused, or a limit was broken: the message says which",
    USAGE: "the command line is wrong",
    SERVER_DEAD: "no server answers, or the server died",
    INTERRUPTED: "interrupted (Ctrl-C)",
}
"""What the exit codes of every command mean."""


def exit_code(error: TriptychError) -> int:
    """Return the exit code that an error ends a command with."""
    return SERVER_DEAD if isinstance(error, (ServerCrashed, ServerUnavailable)) else REFUSED


def print_error(error: TriptychError) -> None:
    """Say on standard error what went wrong."""
    Console(stderr=True, soft_wrap=True).print(Text.assemble(("error: ", "bold red"), str(error)))


def print_json(document: object) -> None:
    """Print plain values as JSON on standard output, and escape what its encoding cannot hold."""
    sys.stdout.write(json.dumps(document, ensure_ascii=False, indent=2) + "\n")


def run(command: Callable[[], None]) -> None:
    """Run a command line; exit as `EXIT_CODES` says, with one sentence on a `TriptychError`.

    A file that the machine refuses (permissions, a full disk) is an error of the same kind, and so is a package that
    is in the place of ours. What a terminal or a pipe cannot show is escaped.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ESCAPE)
    try:
        command()
    except TriptychError as error:
        print_error(error)
        sys.exit(exit_code(error))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except ImportError:
        # Others import OpenCV for themselves.
        if (problem := opencv.problem()) is None:
            raise
        print_error(TriptychError(problem))
        sys.exit(REFUSED)
    except OSError as error:
        if error.filename is None:
            raise
        print_error(TriptychError(f"{error.filename} cannot be used: {error.strerror}"))
        sys.exit(REFUSED)


@contextmanager
def interrupted_by_sigterm() -> Iterator[None]:
    """Let SIGTERM do what Ctrl-C does: however it is stopped, a command leaves the server with its own settings."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
