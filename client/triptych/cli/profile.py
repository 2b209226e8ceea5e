"""`triptych profile`: which layers have the time of a detector, and what changed against another precision."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from triptych.cli.console import print_json
from triptych.cli.options import DEFAULT_REPOSITORY, AsJson, ModelRepository
from triptych.contract import MAX_BATCH
from triptych.errors import ContractError
from triptych.measure import documents
from triptych.measure import profile as profile_file
from triptych.measure.profile import Profile
from triptych.measure.profile_change import Change, compare

WORDS = "ENGINE|VERSION"


def profile(
    model: Annotated[
        str,
        typer.Argument(
            metavar=WORDS,
            help="An adapted ONNX, a plan, the number of a published version, or a JSON file that --out wrote.",
        ),
    ],
    against: Annotated[
        str | None, typer.Option(metavar=WORDS, help="Another precision or runtime of it: say what changed.")
    ] = None,
    runtime: Annotated[
        Literal["openvino", "onnxruntime", "tensorrt"] | None,
        typer.Option(help="What runs it. Default: as the version is served; openvino for an ONNX."),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, max=MAX_BATCH, metavar="N", help="Images in a call.")] = 1,
    threads: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="CPU threads. Default: those of each instance that serves it."),
    ] = None,
    runs: Annotated[
        int, typer.Option(min=5, metavar="N", help="Calls without the runtime's profile, and as many with it.")
    ] = 50,
    top: Annotated[int, typer.Option(min=1, metavar="N", help="Rows of each table; the rest is one row.")] = 10,
    model_repository: ModelRepository = DEFAULT_REPOSITORY,
    out: Annotated[
        Path | None, typer.Option(dir_okay=False, metavar="PROFILE", help="Write a JSON file, and a page next to it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the layers that have a detector's time, as the runtime measures them: precision, share, reformats.

    The detector runs in this process, without the server, on random pixels. With --against, the layers of both are
    matched by the operators of the ONNX that they stand for.

    Exit codes: 0 it is measured, 1 it cannot be, 2 the command line is wrong.
    """
    from triptych import report as reports

    try:
        page = reports.page_path(out) if out else None
    except ContractError as error:
        raise typer.BadParameter(str(error)) from error
    words = [model, *([against] if against else ())]
    after, *others = _profiles(words, model_repository, runtime, threads, batch, runs)
    change = compare(others[0], after) if others else None
    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    _print(after, change, top, console)
    if as_json:
        print_json(documents.to_json(after) | (_as_json(change) if change else {}))
    if out and page:
        profile_file.write(out, after)
        reports.write(page, reports.html(reports.of_profile(after, change)))
        console.print(f"written to {out} and {page}", markup=False)


def _profiles(
    words: list[str], repository: Path, runtime: str | None, threads: int | None, batch: int, runs: int
) -> list[Profile]:
    """Return the profiles of what was named: those that are not in files are measured, in turn."""
    from triptych_build.profile.measure import measure
    from triptych_build.profile.subject import find

    saved = {word: profile_file.read(Path(word)) for word in words if word.endswith(".json")}
    subjects = [find(word, repository, runtime, threads) for word in words if word not in saved]
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("turns", total=None)
        command = ["triptych", *sys.argv[1:]]
        measured = measure(
            subjects, batch, runs, command, lambda done, of: progress.update(task, completed=done, total=of)
        )
    return [saved[word] if word in saved else measured.pop(0) for word in words]


def _as_json(change: Change) -> dict[str, object]:
    before, _ = change.names
    return {
        "against": before,
        "speedup": change.speedup,
        "parts": documents.to_json(change.parts),
        "reasons": change.reasons(),
    }


def _print(profile: Profile, change: Change | None, top: int, console: Console) -> None:
    from triptych.report import profile as shown
    from triptych.report.terminal import block_table

    console.print(shown.setting_sentence(profile), markup=False)
    tables = {
        "The slowest layers": shown.layer_table(profile, top),
        "By precision": shown.precision_table(profile),
        "By kind": shown.kind_table(profile, top),
    }
    if change:
        tables["Where the difference is"] = shown.part_table(change)
        tables["What changed most"] = shown.group_table(change, top)
    for title, table in tables.items():
        console.print(block_table(table, title), soft_wrap=False)
    for sentence in profile.sentences():
        console.print(sentence, markup=False)
    if change:
        console.print(Text(change.sentence, "bold"))
        for reason in change.reasons():
            console.print(Text(reason, "yellow"))
