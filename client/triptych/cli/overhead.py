"""`triptych overhead`: what a service costs beyond the same work in a loop of one's own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from triptych.cli.console import print_json
from triptych.cli.options import DEFAULT_ADDRESS, DEFAULT_REPOSITORY, Access, Address, AsJson, ModelRepository, grouped
from triptych.errors import ContractError
from triptych.measure import documents
from triptych.measure.overhead import Overhead
from triptych_loadtest.payloads import read_images


@grouped
def overhead(
    access: Access,
    images: Annotated[Path, typer.Option(metavar="DIR", help="Images for both sides, in turn.")],
    address: Address = DEFAULT_ADDRESS,
    model_repository: ModelRepository = DEFAULT_REPOSITORY,
    threads: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="CPU threads of the loop's runtime. Default: all cores.")
    ] = None,
    users: Annotated[
        int, typer.Option(min=1, metavar="N", help="Requests that the server has at once; the loop has one image.")
    ] = 1,
    frames: Annotated[int, typer.Option(min=4, metavar="N", help="Images of each side, over all rounds.")] = 200,
    rounds: Annotated[int, typer.Option(min=4, metavar="N", help="Turns of each side.")] = 10,
    out: Annotated[Path | None, typer.Option(dir_okay=False, metavar="PAGE", help="Write an HTML page.")] = None,
    markdown: Annotated[
        Path | None, typer.Option(dir_okay=False, metavar="FILE", help="Write it as Markdown, for a pull request.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare the service with a loop of your own: who has the difference, and what would take it away.

    The loop is one process with the file that the server serves: it decodes, letterboxes, detects and suppresses, as
    the server's stages do. Both sides take turns on the same images, on the server's machine.

    Exit codes: 0 it is measured, 1 it cannot be, 3 no server answers.
    """
    from triptych import report as reports
    from triptych.measure.overhead_runner import Plan, measure

    try:
        plan = Plan(
            address, read_images(images), model_repository, frames, rounds, users, threads, access.credentials()
        )
    except ContractError as error:
        raise typer.BadParameter(str(error)) from error
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("rounds", total=rounds)
        result = measure(
            plan, ["triptych", *sys.argv[1:]], lambda done, of: progress.update(task, completed=done, total=of)
        )
    _print(result, Console(stderr=as_json, highlight=False, soft_wrap=True))
    page = reports.of_overhead(result)
    if out:
        reports.write(out, reports.html(page))
    if markdown:
        reports.write(markdown, reports.markdown(page))
    if as_json:
        print_json(documents.to_json(result) | {"difference_ms": result.difference_ms})


def _print(result: Overhead, console: Console) -> None:
    from triptych.report.overhead import agreement_sentence, setting_sentence
    from triptych.report.terminal import overhead_table

    console.print(overhead_table(result), soft_wrap=False)
    console.print(Text(result.sentence, "bold"))
    console.print(setting_sentence(result.setting), markup=False)
    console.print(agreement_sentence(result), style="yellow" if result.agreed < result.frames else None)
    for row in result.advice:
        console.print(Text.assemble((f"{row.owner}, {row.difference_ms:+.1f} ms: ", "bold"), row.advice))
