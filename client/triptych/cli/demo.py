"""`triptych demo`: the whole of Triptych in two minutes."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console


def demo(
    duration_s: Annotated[float, typer.Option(min=1, metavar="SECONDS", help="How long the load test measures.")] = 10,
) -> None:
    """Build the demo's detector, serve it, detect, and see where the time goes.

    Every step is a command that you could type. All files go to .triptych/demo in the current directory.
    """
    from triptych_demo.demo import run_demo

    run_demo(duration_s, Console(highlight=False, soft_wrap=True))
