"""`triptych tune`: which instances, batch and delay answer the most images on this machine."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from triptych.cli.console import interrupted_by_sigterm, print_json
from triptych.cli.options import DEFAULT_REPOSITORY, AsJson, ModelRepository
from triptych.contract import MAX_BATCH
from triptych.errors import ContractError, ImageError
from triptych.machine import available_cores
from triptych.measure import documents, tuning
from triptych.measure.tuning_runner import Servers
from triptych.serving.tuned import FILE
from triptych.vision.decode import image_files

FEWEST_USERS, USERS_PER_CORE = 8, 4
"""So many keep a server busy, whatever it is given in the search; fewer wait less, and see other settings as best."""


def tune(
    images: Annotated[Path, typer.Option(metavar="DIR", help="Images to send, drawn at random.")],
    model_repository: ModelRepository = DEFAULT_REPOSITORY,
    users: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help=f"Users that each wait for their answer. Default: {USERS_PER_CORE} a core, {FEWEST_USERS} or more.",
        ),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, max=MAX_BATCH, metavar="N", help="Images in a request.")] = 1,
    minutes: Annotated[
        float,
        typer.Option(
            min=0.1,
            metavar="MINUTES",
            help="How long the search may take; it ends earlier if no step gains. The turns, as long as eight steps, "
            "come on top.",
        ),
    ] = 4,
    duration_s: Annotated[
        float, typer.Option(min=0.5, metavar="SECONDS", help="How long each server is measured.")
    ] = 5,
    write: Annotated[
        bool,
        typer.Option(
            "--write/--no-write", help="Put what is better into the model repository, where `triptych serve` finds it."
        ),
    ] = True,
    out: Annotated[
        Path | None, typer.Option(dir_okay=False, metavar="FILE", help="Write a JSON file, and a page next to it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find the instances of every stage, the detector's batch and its delay that answer the most images here.

    It starts servers of its own on free ports, one after the other. One that runs is not touched, but stop it, or
    they share the machine. The first is as `triptych serve` would serve; then the stage that requests wait for gets
    more. What seems best is measured in turns with the first, four times each. If it is better by more than chance,
    the model repository gets it (tuned.json), and `triptych serve` applies it on this machine, to this detector.
    Delete the file, and it decides as before.

    Exit codes: 0 it was measured, 1 it could not be.
    """
    from triptych import report as reports
    from triptych.measure.tuning_runner import tune as run
    from triptych.report.terminal import TuningProgress
    from triptych.report.tuning import is_noisy, noise_sentence

    try:
        page = reports.page_path(out) if out else None
    except ContractError as error:
        raise typer.BadParameter(str(error)) from error
    if not image_files(images):
        raise ImageError(f"there are no images in {images}")
    if write and not os.access(model_repository, os.W_OK):
        raise ContractError(f"{model_repository} is no directory that can be written to; name it, or say --no-write")
    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    with tempfile.TemporaryDirectory(prefix="triptych-tune-") as directory, interrupted_by_sigterm():
        users = users or max(FEWEST_USERS, USERS_PER_CORE * available_cores())
        servers = Servers(model_repository, images, users, batch, duration_s, Path(directory))
        with TuningProgress(console) as progress:
            result = run(servers, minutes, ["triptych", *sys.argv[1:]], progress)
    console.print(Text(result.sentence, "bold"))
    noisy = is_noisy(result)
    advice = "; the machine does something else meanwhile: measure in peace" if noisy else ""
    console.print(f"{noise_sentence(result)}{advice}", style="yellow" if noisy else None, markup=False)
    if write and result.tuned:
        tuning.write(model_repository / FILE, result)
        console.print(f"written to {model_repository / FILE}: the next `triptych serve` here applies it", markup=False)
    if out and page:
        tuning.write(out, result)
        reports.write(page, reports.html(reports.of_tuning(result, out.stem)))
        console.print(f"written to {out} and {page}", markup=False)
    if as_json:
        print_json(documents.to_json(result) | {"sentence": result.sentence})
