"""`triptych track`: follow the objects of a video, and know what each stage of that takes."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
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
    from triptych.video.tracking import Outcome


@grouped
def track(
    source: Annotated[
        str,
        typer.Argument(
            metavar="VIDEO|DIR|CAMERA",
            help="A video file, a directory of pictures, a camera's number or a stream's URL (rtsp://, http://).",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", dir_okay=False, metavar="FILE", help="The tracks, one JSON object a frame.")
    ],
    resume: Annotated[bool, typer.Option("--resume", help="Continue FILE and its tracks where it ends.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what FILE holds.")] = False,
    address: Address = DEFAULT_ADDRESS,
    in_flight: Annotated[
        int, typer.Option("--in-flight", min=1, metavar="N", help="Frames that are with the server at a time.")
    ] = 2,
    quality: Annotated[
        int,
        typer.Option(
            "--quality", min=1, max=100, help="Of the JPEGs that are sent; pictures of a directory go as they are."
        ),
    ] = 92,
    frames: Annotated[
        int | None, typer.Option("--frames", min=1, metavar="N", help="Stop after so many frames.")
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
    """Detect and track the objects of a video; each frame becomes a line of FILE as soon as it is done.

    While one frame is tracked, the next ones are with the server. A server that goes away is waited for; if it stays
    away, FILE holds all frames up to there, and --resume continues. The same goes for a camera or a stream. A frame
    that cannot be read has the reason in its line, and the exit code is 1 at the end.

    Exit codes: 0 done, or a camera was stopped by Ctrl-C; 1 frames could not be read, the camera is lost, or FILE
    cannot be continued; 3 the server is lost; 130 stopped before the end.
    """
    from triptych import report as reports
    from triptych.video.journal import only_writer
    from triptych.video.recording import Recorder
    from triptych.video.sources import open_source
    from triptych.video.tracking import Settings, prepare

    if resume and overwrite:
        raise typer.BadParameter("--resume continues the file and --overwrite replaces it; give one of them")
    try:
        page = reports.page_path(run) if run else None
    except ContractError as error:
        raise typer.BadParameter(str(error), param_hint="--run") from error
    stop = threading.Event()
    notes = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    settings = Settings(frames, in_flight, quality, score_threshold, iou_threshold, retry_s)
    with (
        closing(open_source(source, retry_s=retry_s, stop=stop, say=notes.print)) as opened,
        DetectionClient(address, timeout_s=timeout_s, retries=0, credentials=access.credentials()) as client,
        only_writer(out),
    ):
        tracking = prepare(
            opened, client, out, settings, resume=resume, overwrite=overwrite, stop=stop, say=notes.print
        )
        recorder = Recorder(client, run, model_repository, ["triptych", *sys.argv[1:]]) if run else None
        with _stopped_by_signals(stop), _progress(tracking.expected) as advance:
            outcome = tracking.run([advance], recorder)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    _print(outcome, in_flight, opened.live, console)
    if run and page and outcome.run:
        reports.write(page, reports.html(reports.of_run(outcome.run, run.stem)))
        console.print(f"the run is in {run}, its page in {page}")
    if outcome.lost:
        notes.print(f"{out} has every frame before that: continue with --resume")
        raise outcome.lost
    if stop.is_set() and not opened.live:
        console.print("stopped before the end; continue with --resume")
        raise typer.Exit(INTERRUPTED)
    if outcome.unmeasured:
        notes.print(f"{out} has every frame; {run} was not written")
        raise outcome.unmeasured
    if outcome.failed:
        raise typer.Exit(REFUSED)


def _print(outcome: Outcome, in_flight: int, live: bool, console: Console) -> None:
    """Print what came out, and where the time went: the server's stages as well if there is a run."""
    from triptych.measure import remarks
    from triptych.measure.attribution import owner_sentence
    from triptych.report.terminal import attribution_table
    from triptych.video.stages import bound_sentence, busy_shares, latency_sentence
    from triptych.video.terminal import stage_table

    for sentence in outcome.sentences():
        console.print(sentence)
    totals = outcome.totals
    if not totals.frames:
        return
    means_ms = totals.means_ms()
    shares = busy_shares(means_ms, totals.frames_per_s, in_flight)
    console.print(stage_table(means_ms, shares))
    if outcome.run:
        attribution = outcome.run.attribution
        console.print(attribution_table(attribution))
        console.print(owner_sentence(attribution.breakdowns["mean"], "mean latency of a frame"))
        for remark in remarks.of_run(outcome.run):
            console.print(str(remark), style="yellow", markup=False)
    else:
        console.print(latency_sentence(means_ms))
    console.print(bound_sentence(shares, totals.frames_per_s, live))


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
def _progress(frames: int | None) -> Iterator[Callable[[Tracked], None]]:
    """Show a bar on the terminal; give the listener that moves it on."""
    columns = (TextColumn("tracking"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("tracking", total=frames)
        yield lambda _tracked: progress.advance(task)
