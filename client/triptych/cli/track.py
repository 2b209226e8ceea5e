"""`triptych track`: follow the objects of a video, and know what each stage of that takes."""

from __future__ import annotations

import signal
import threading
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from triptych.cli.detect import IouThreshold
from triptych.client import DEFAULT_ADDRESS, DEFAULT_TIMEOUT_S, DetectionClient
from triptych.errors import ContractError, RequestError, TriptychError
from triptych.measure.attribution import owner_sentence
from triptych.report.terminal import attribution_table
from triptych.video import pipeline
from triptych.video.detecting import PatientDetector
from triptych.video.journal import Done, Journal, read_done
from triptych.video.pipeline import Tracked
from triptych.video.sources import open_source
from triptych.video.stages import Totals, bound_sentence, busy_shares, latency_sentence, stage_table
from triptych.video.tracker import LOW_SCORE, Tracker

if TYPE_CHECKING:
    from triptych.measure.run_file import Run
    from triptych.video.recording import Observer

INTERRUPTED = 130
"""The exit code where somebody stopped it before the end of a file."""

REPLAYED_MEMORIES = 3
"""How many times a track's memory is replayed at --resume, for the tracks to stand as they stood."""


def track(
    source: Annotated[
        str,
        typer.Argument(
            metavar="VIDEO|DIR|CAMERA",
            help="A video file, a directory of pictures, a camera's number or a stream's URL (rtsp://, http://).",
        ),
    ],
    out: Annotated[Path, typer.Option(dir_okay=False, metavar="FILE", help="The tracks, one JSON object a frame.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on where FILE ends; its tracks go on as well.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin FILE anew.")] = False,
    address: Annotated[str, typer.Option(metavar="HOST:PORT", help="The server's gRPC address.")] = DEFAULT_ADDRESS,
    in_flight: Annotated[int, typer.Option(min=1, metavar="N", help="Frames that are with the server at a time.")] = 2,
    quality: Annotated[
        int, typer.Option(min=1, max=100, help="Of the JPEGs that are sent; pictures of a directory go as they are.")
    ] = 92,
    frames: Annotated[int | None, typer.Option(min=1, metavar="N", help="Stop after so many frames.")] = None,
    score_threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="What scores below only continues a track. Default: the model's own."),
    ] = None,
    iou_threshold: IouThreshold = None,
    timeout: Annotated[
        float, typer.Option(min=0.001, metavar="SECONDS", help="How long to wait for each answer.")
    ] = DEFAULT_TIMEOUT_S,
    retry_s: Annotated[
        float, typer.Option("--retry-s", min=0, metavar="SECONDS", help="How long to wait for a server that is gone.")
    ] = 30.0,
    run: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            metavar="RUN",
            help="Trace every request, and write where the time went to this JSON file, and a page beside it. The "
            "times of all frames are kept in memory until then.",
        ),
    ] = None,
    model_repository: Annotated[
        Path | None, typer.Option(file_okay=False, metavar="DIR", help="With --run: what is served, for its manifest.")
    ] = None,
) -> None:
    """Detect and track the objects of a video; each frame becomes a line of FILE as soon as it is done.

    While one frame is tracked the next ones are with the server. A server that goes away is waited for; if it stays
    away, FILE holds all frames up to there and --resume goes on. Frames that cannot be read have their reason in their
    own line, and the exit code is 1 at the end.
    """
    _check_out(out, resume, overwrite)
    if run and run.suffix == ".html":
        raise ContractError(f"--run must name a JSON file, such as {run.with_suffix('.json')}; its page goes beside it")
    notes = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    with closing(open_source(source)) as opened, DetectionClient(address, timeout_s=timeout, retries=0) as client:
        threshold = client.spec().score_threshold if score_threshold is None else score_threshold
        tracker = Tracker(opened.frames_per_s, threshold)
        done = read_done(out, REPLAYED_MEMORIES * tracker.memory_frames) if resume else Done()
        tracker.replay(((line.objects, line.track_ids) for line in done.recent), done.last_id)
        if done.next_frame:
            notes.print(f"{out} has the frames up to {done.next_frame - 1}; going on from there")
        detect = PatientDetector(client, min(threshold, LOW_SCORE), iou_threshold, retry_s, notes.print)
        left = frames or (max(0, opened.frames - done.next_frame) if opened.frames else None)
        result = None
        with (
            Journal(out, done) as journal,
            _stopped_by_signals(detect.stop),
            _observer(client, run, model_repository) as observer,
            _progress(left) as advance,
        ):
            steps = pipeline.run(
                opened,
                done.next_frame,
                detect,
                tracker,
                journal.write,
                score_threshold=threshold,
                in_flight=in_flight,
                quality=quality,
                prefix=f"{uuid.uuid4().hex[:8]}-",
            )
            outcome = work(steps, frames, detect.stop, (advance, observer.add) if observer else (advance,))
            if observer and outcome.totals.frames and not outcome.lost:
                result = observer.write(outcome.totals, in_flight)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    expected = None if opened.live or frames or detect.stop.is_set() or outcome.lost else left
    for sentence in outcome.sentences(opened.dropped, expected):
        console.print(sentence)
    report(outcome.totals, in_flight, opened.live, result, console)
    if result and run:
        console.print(f"the run is in {run}, its page in {write_page(result, run)}")
    if outcome.lost:
        raise TriptychError(f"{outcome.lost}; {out} has every frame before that: go on with --resume") from outcome.lost
    if detect.stop.is_set() and not opened.live:
        console.print("stopped before the end; go on with --resume")
        raise typer.Exit(INTERRUPTED)
    if outcome.failed:
        raise typer.Exit(1)


def write_page(result: Run, path: Path) -> Path:
    """Write the page of a run beside it; where it is."""
    from triptych import report as reports  # not for everybody: it needs Jinja, of the extra `track`

    page = reports.beside(path)
    reports.write(page, reports.html(reports.of_run(result, path.stem)))
    return page


@dataclass
class Outcome:
    """What came of the frames.

    Attributes:
        totals: their times.
        track_ids: of all tracks that were seen.
        failed: frames that could not be read.
        lost: what ended it before the end; None if nothing did.
    """

    totals: Totals = field(default_factory=Totals)
    track_ids: set[int] = field(default_factory=set)
    failed: int = 0
    lost: RequestError | None = None

    def add(self, tracked: Tracked) -> None:
        """Count one frame."""
        self.totals.add(tracked.times)
        self.failed += tracked.line.error is not None
        self.track_ids.update(track_id for track_id in tracked.line.track_ids if track_id is not None)

    def sentences(self, dropped: int, expected: int | None) -> list[str]:
        """What there is to say of it.

        Args:
            dropped: frames of a live source that nobody came for.
            expected: how many frames there should have been; None where nobody knows.
        """
        totals = self.totals
        parts = [
            f"{totals.frames} frames in {totals.seconds:.1f} s",
            f"{totals.frames_per_s:.1f} frames/s",
            f"{len(self.track_ids)} tracks",
            *([f"{dropped} frames dropped"] if dropped else []),
            *([f"{self.failed} failed"] if self.failed else []),
        ]
        short = expected is not None and totals.frames < expected
        warning = f"{expected} frames were expected, but the source ended after {totals.frames}"
        return [", ".join(parts), *([warning] if short else [])]


def work(
    steps: Generator[Tracked, None, None],
    limit: int | None,
    stop: threading.Event,
    listeners: Iterable[Callable[[Tracked], None]],
) -> Outcome:
    """Have the frames worked off, until there are no more, the limit is reached, or somebody stops it."""
    outcome = Outcome()
    with closing(steps):
        try:
            for tracked in steps:
                for listener in (outcome.add, *listeners):
                    listener(tracked)
                if stop.is_set() or outcome.totals.frames == limit:
                    break
        except RequestError as error:
            if not stop.is_set():
                outcome.lost = error
    return outcome


def report(totals: Totals, in_flight: int, live: bool, result: Run | None, console: Console) -> None:
    """Print where the time went: with the server's stages if there is a run, else as the client alone knows it."""
    if not totals.frames:
        return
    means_ms = totals.means_ms()
    shares = busy_shares(means_ms, totals.frames_per_s, in_flight)
    console.print(stage_table(means_ms, shares))
    if result:
        console.print(attribution_table(result.attribution))
        mean = result.attribution.breakdowns["mean"]
        console.print(owner_sentence(mean, "mean latency of a frame"))
        for sentence in result.attribution.long_tails:
            console.print(sentence, style="yellow")
    else:
        console.print(latency_sentence(means_ms))
    console.print(bound_sentence(shares, totals.frames_per_s, live))


def _check_out(out: Path, resume: bool, overwrite: bool) -> None:
    if resume and overwrite:
        raise ContractError("--resume goes on with the file and --overwrite begins it anew; give one of them")
    if out.exists() and out.stat().st_size and not (resume or overwrite):
        raise ContractError(f"{out} is not empty; go on with it with --resume, or begin it anew with --overwrite")


def _observer(
    client: DetectionClient, run: Path | None, model_repository: Path | None
) -> AbstractContextManager[Observer | None]:
    if run is None:
        return nullcontext()
    from triptych.video.recording import Observer

    return Observer(client, run, model_repository)


@contextmanager
def _stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """Ctrl-C and SIGTERM set `stop`, and what is under way ends well; a second one ends it at once."""

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
    """A bar on the terminal; gives the listener that moves it on."""
    columns = (TextColumn("tracking"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("tracking", total=frames)
        yield lambda _tracked: progress.advance(task)
