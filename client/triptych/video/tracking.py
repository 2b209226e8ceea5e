"""A whole video tracked: from the file's last line, if there is one, to the end of the source."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from triptych.client import DetectionClient
from triptych.errors import ContractError, ImageError, MeasurementError, RequestError
from triptych.measure.run_file import Run
from triptych.video import pipeline
from triptych.video.detecting import PatientDetector
from triptych.video.frames import Source
from triptych.video.journal import Done, Journal, read_done
from triptych.video.pipeline import Tracked
from triptych.video.recording import Recorder
from triptych.video.stages import Totals
from triptych.video.tracker import LOW_SCORE, Tracker

REPLAYED_MEMORIES = 3
"""How many times a track's memory is replayed when a file is continued, so that the tracks stand as they stood."""


@dataclass(frozen=True)
class Settings:
    """How to track.

    Attributes:
        frames: stop after so many; None for all.
        in_flight: frames that are with the server at a time.
        quality: of the JPEGs that are sent, 1..100.
        score_threshold: what scores below only continues a track; None for the model's own.
        iou_threshold: of two boxes of a class that overlap more, the weaker is dropped; None for the model's own.
        retry_s: how long to wait for a server that is gone.
    """

    frames: int | None = None
    in_flight: int = 2
    quality: int = 92
    score_threshold: float | None = None
    iou_threshold: float | None = None
    retry_s: float = 30.0


@dataclass
class Outcome:
    """What came of the frames.

    Attributes:
        totals: their times.
        track_ids: of all tracks that were seen.
        failed: frames that could not be read.
        example: why the first of them could not; empty if all could.
        dropped: frames of a live source that nobody took.
        lost: what ended it before the end; None if nothing did.
        run: the run that was recorded; None if none was.
        unmeasured: why no run was recorded, though one was wanted; None if that is not so.
    """

    totals: Totals = field(default_factory=Totals)
    track_ids: set[int] = field(default_factory=set)
    failed: int = 0
    example: str = ""
    dropped: int = 0
    lost: RequestError | ImageError | None = None
    run: Run | None = None
    unmeasured: MeasurementError | None = None

    def add(self, tracked: Tracked) -> None:
        """Count one frame."""
        self.totals.add(tracked.times)
        self.track_ids.update(track_id for track_id in tracked.line.track_ids if track_id is not None)
        if tracked.line.error:
            self.failed += 1
            self.example = self.example or f"frame {tracked.line.frame}: {tracked.line.error}"

    def sentences(self) -> list[str]:
        """Return how many frames and tracks there were, and why the first frame failed, if one did."""
        parts = [
            f"{self.totals.frames} frames in {self.totals.seconds:.1f} s",
            f"{self.totals.frames_per_s:.1f} frames/s",
            f"{len(self.track_ids)} tracks",
            *([f"{self.dropped} frames dropped"] if self.dropped else []),
            *([f"{self.failed} failed"] if self.failed else []),
        ]
        return [", ".join(parts), *([self.example] if self.failed else [])]


@dataclass
class Tracking:
    """A source, a server and a file of tracks, ready to go.

    Attributes:
        source: where the frames come from.
        client: the server; it tries each request once.
        out: the file.
        done: what the file already holds.
        tracker: knows the tracks of the frames that are done.
        settings: how to track.
        score_threshold: the one that counts.
        stop: once it is set, the frame at hand is the last.
        say: hears what a person should know.
    """

    source: Source
    client: DetectionClient
    out: Path
    done: Done
    tracker: Tracker
    settings: Settings
    score_threshold: float
    stop: threading.Event
    say: Callable[[str], None]

    @property
    def expected(self) -> int | None:
        """How many frames there are to do; None where nobody knows."""
        frames = self.source.frames
        return self.settings.frames or (max(0, frames - self.done.next_frame) if frames else None)

    def run(self, listeners: Iterable[Callable[[Tracked], None]] = (), recorder: Recorder | None = None) -> Outcome:
        """Track until there are no more frames, the limit is reached, somebody stops it, or server or camera is lost.

        Args:
            listeners: called with each frame that is done.
            recorder: records the run, if one is wanted.

        Raises:
            OSError: the file cannot be written.
        """
        if recorder is None:
            return self._work(listeners)
        with recorder:
            outcome = self._work([*listeners, recorder.add])
            if outcome.totals.frames and not outcome.lost:
                try:
                    outcome.run = recorder.write(outcome.totals, self.settings.in_flight)
                except MeasurementError as error:
                    outcome.unmeasured = error
        return outcome

    def _work(self, listeners: Iterable[Callable[[Tracked], None]]) -> Outcome:
        outcome = Outcome()
        with self._steps() as steps:
            try:
                for tracked in steps:
                    for listener in (outcome.add, *listeners):
                        listener(tracked)
                    if self.stop.is_set() or outcome.totals.frames == self.settings.frames:
                        break
            except (RequestError, ImageError) as error:
                if not self.stop.is_set():
                    outcome.lost = error
        outcome.dropped = self.source.dropped
        return outcome

    @contextmanager
    def _steps(self) -> Iterator[Generator[Tracked, None, None]]:
        settings = self.settings
        detect = PatientDetector(
            self.client,
            min(self.score_threshold, LOW_SCORE),
            settings.iou_threshold,
            settings.retry_s,
            self.say,
            self.stop,
        )
        with Journal(self.out, self.done, self.source.identity) as journal:
            steps = pipeline.run(
                self.source,
                self.done.next_frame,
                detect,
                self.tracker,
                journal.write,
                score_threshold=self.score_threshold,
                in_flight=settings.in_flight,
                quality=settings.quality,
                prefix=f"{uuid.uuid4().hex[:8]}-",
            )
            with closing(steps):
                yield steps


def prepare(
    source: Source,
    client: DetectionClient,
    out: Path,
    settings: Settings,
    *,
    resume: bool = False,
    overwrite: bool = False,
    stop: threading.Event | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Tracking:
    """Read how far the file has come, and bring the tracker there.

    Raises:
        ContractError: the file holds something that nobody asked to continue or to overwrite, tracks of another video,
            or no tracks at all.
        RequestError: the server does not say what it serves.
    """
    if out.exists() and out.stat().st_size and not (resume or overwrite):
        raise ContractError(f"{out} is not empty; continue it with --resume, or replace it with --overwrite")
    threshold = settings.score_threshold
    if threshold is None:
        threshold = client.spec().score_threshold
    tracker = Tracker(source.frames_per_s, threshold)
    done = read_done(out, REPLAYED_MEMORIES * tracker.memory_frames) if resume else Done()
    if done.video and done.video != source.identity:
        raise ContractError(
            f"{out} has the tracks of another video than {source.name}; give the video it was begun with, another "
            "--out, or --overwrite"
        )
    tracker.replay(((line.objects, line.track_ids) for line in done.recent), done.last_id)
    if done.next_frame:
        say(f"{out} has the frames up to {done.next_frame - 1}; going on from there")
    return Tracking(source, client, out, done, tracker, settings, threshold, stop or threading.Event(), say)
