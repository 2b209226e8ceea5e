"""`triptych track`: follow the objects of videos and cameras, and know what each stage of that takes."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from triptych.cli.console import INTERRUPTED, REFUSED
from triptych.cli.options import (
    DEFAULT_ADDRESS,
    DEFAULT_TIMEOUT_S,
    Access,
    Address,
    IouThreshold,
    TimeoutS,
    grouped,
)
from triptych.client import DetectionClient
from triptych.errors import ContractError

if TYPE_CHECKING:
    from triptych.video.pipeline import Tracked
    from triptych.video.together import Together
    from triptych.video.tracking import Tracking


@grouped
def track(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="VIDEO|DIR|CAMERA",
            help="Video files, directories of pictures, numbers of cameras or URLs of streams (rtsp://, http://).",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="FILE|DIR",
            help="The tracks, one JSON object a frame. With several sources a directory, for a file of each: "
            "DIR/street.jsonl, DIR/camera-0.jsonl.",
        ),
    ],
    resume: Annotated[bool, typer.Option("--resume", help="Continue each file and its tracks where it ends.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what the files hold.")] = False,
    address: Address = DEFAULT_ADDRESS,
    in_flight: Annotated[
        int,
        typer.Option(
            "--in-flight", min=1, metavar="N", help="Frames of each source that are with the server at a time."
        ),
    ] = 2,
    quality: Annotated[
        int,
        typer.Option(
            "--quality", min=1, max=100, help="Of the JPEGs that are sent; pictures of a directory go as they are."
        ),
    ] = 92,
    frames: Annotated[
        int | None, typer.Option("--frames", min=1, metavar="N", help="Stop after so many frames of each source.")
    ] = None,
    score_threshold: Annotated[
        float | None,
        typer.Option(
            "--score-threshold",
            min=0,
            max=1,
            help="What scores below only continues a track. Default: the model's own.",
        ),
    ] = None,
    iou_threshold: IouThreshold = None,
    timeout_s: TimeoutS = DEFAULT_TIMEOUT_S,
    retry_s: Annotated[
        float,
        typer.Option(
            "--retry-s", min=0, metavar="SECONDS", help="How long to wait for a server or a camera that is gone."
        ),
    ] = 30.0,
    run: Annotated[
        Path | None,
        typer.Option(
            "--run",
            dir_okay=False,
            metavar="RUN",
            help="Trace every request, and write where the time went to this JSON file, and its page next to it. The "
            "times of all frames stay in memory until then.",
        ),
    ] = None,
    model_repository: Annotated[
        Path | None,
        typer.Option(
            "--model-repository", file_okay=False, metavar="DIR", help="With --run: what is served, for its manifest."
        ),
    ] = None,
    *,
    access: Access,
) -> None:
    """Detect and track the objects of videos; each frame becomes a line of a file as soon as it is done.

    While one frame is tracked, the next ones are with the server. A server that goes away is waited for; if it stays
    away, the file holds all frames up to there, and --resume continues. The same goes for a camera or a stream; the
    other sources go on. A frame that cannot be read has the reason in its line, and the exit code is 1 at the end.

    Exit codes: 0 done, or cameras were stopped by Ctrl-C; 1 frames could not be read, a camera is lost, or a file
    cannot be continued; 3 the server is lost; 130 stopped before the end.
    """
    from triptych import report as reports
    from triptych.video.detecting import PatientDetector
    from triptych.video.recording import Recorder
    from triptych.video.sources import without_secrets
    from triptych.video.together import Crew, track_files
    from triptych.video.tracking import Settings

    if resume and overwrite:
        raise typer.BadParameter("--resume continues the file and --overwrite replaces it; give one of them")
    if len(sources) > 1 and out.is_file():
        raise typer.BadParameter(
            f"{len(sources)} sources need a directory, but {out} is a file; name a directory", param_hint="--out"
        )
    try:
        page = reports.page_path(run) if run else None
    except ContractError as error:
        raise typer.BadParameter(str(error), param_hint="--run") from error
    files = track_files(sources, out) if len(sources) > 1 or out.is_dir() else [out]
    stop = threading.Event()
    notes = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    settings = Settings(frames, in_flight, quality, score_threshold, iou_threshold)
    with (
        DetectionClient(address, timeout_s=timeout_s, retries=0, credentials=access.credentials()) as client,
        _stopped_by_signals(stop),
        _progress() as watch,
    ):
        detector = PatientDetector(client, retry_s, notes.print, stop)
        command = ["triptych", *map(without_secrets, sys.argv[1:])]
        recorder = Recorder(client, run, model_repository, command) if run else None
        crew = Crew(detector, settings, resume, overwrite, stop, notes.print, watch)
        together = crew.track(list(zip(sources, files, strict=True)), recorder)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    if any(outcome.begun for outcome in together.outcomes):
        _print(together, in_flight, console)
    if run and page and together.run:
        reports.write(page, reports.html(reports.of_run(together.run, run.stem)))
        console.print(f"the run is in {run}, its page in {page}")
    for outcome, file in zip(together.outcomes, files, strict=True):
        if outcome.lost and outcome.begun:
            notes.print(f"{file} has every frame before that: continue with --resume")
    if lost := together.error():
        raise lost
    if any(outcome.stopped and not outcome.live for outcome in together.outcomes):
        console.print("stopped before the end; continue with --resume")
        raise typer.Exit(INTERRUPTED)
    if together.unmeasured:
        notes.print(f"{out} has every frame; {run} was not written")
        raise together.unmeasured
    if any(outcome.failed for outcome in together.outcomes):
        raise typer.Exit(REFUSED)


def _print(together: Together, in_flight: int, console: Console) -> None:
    """Print what came out, and where the time went: the server's stages as well if there is a run."""
    from triptych.measure import remarks
    from triptych.measure.attribution import owner_sentence
    from triptych.report.terminal import attribution_table
    from triptych.video.stages import bound_sentence, busy_shares, latency_sentence
    from triptych.video.terminal import source_table, stage_table

    for sentence in together.sentences():
        console.print(sentence)
    totals, sources = together.totals, len(together.outcomes)
    if sources > 1:
        console.print(source_table(together.outcomes))
    if not totals.frames:
        return
    means_ms = totals.means_ms()
    shares = busy_shares(means_ms, totals.frames_per_s, in_flight, sources)
    console.print(stage_table(means_ms, shares))
    if together.run:
        attribution = together.run.attribution
        console.print(attribution_table(attribution))
        console.print(owner_sentence(attribution.breakdowns["mean"], "mean latency of a frame"))
        for remark in remarks.of_run(together.run):
            console.print(str(remark), style="yellow", markup=False)
    else:
        console.print(latency_sentence(means_ms))
    live = all(outcome.live for outcome in together.outcomes)
    console.print(bound_sentence(shares, totals.frames_per_s, live, sources))


@contextmanager
def _stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM set `stop`, so that the work at hand ends well; a second one ends it at once."""

    def end(_number: int, _frame: FrameType | None) -> None:
        stop.set()
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        restore()


@contextmanager
def _progress() -> Iterator[Callable[[Tracking], Callable[[Tracked], None]]]:
    """Show a bar for each source on the terminal; give the function that adds one and returns what moves it on."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:

        def watch(tracking: Tracking) -> Callable[[Tracked], None]:
            task = progress.add_task(escape(tracking.source.name), total=tracking.expected)
            return lambda _tracked: progress.advance(task)

        yield watch
