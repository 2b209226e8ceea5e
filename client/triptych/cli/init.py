"""`triptych init`: a new directory with all that a service needs but the detector."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from triptych.serving.template import lay_out


def init(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="The directory; it is made if need be. What is there stays as it is.")
    ],
) -> None:
    """Lay out a model repository, a locustfile and a README in DIR."""
    written = lay_out(directory)
    console = Console(highlight=False, soft_wrap=True)
    for path in written:
        console.print(str(path), markup=False)
    if not written:
        console.print(f"{directory} has all files already; nothing was written", markup=False)
    console.print(f"Next: `cd {directory} && triptych build MODEL.onnx`", markup=False)
