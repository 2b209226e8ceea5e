"""A whole source tracked: from the last line of its file, if there is one, to its end."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from triptych.errors import ContractError, ImageError, RequestError, TriptychError
from triptych.video import pipeline
from triptych.video.detecting import PatientDetector
from triptych.video.frames import Source
from triptych.video.journal import Done, Journal, read_done
from triptych.video.pipeline import Tracked
from triptych.video.stages import Totals
from triptych.video.tracker import LOW_SCORE, Tracker

REPLAYED_MEMORIES = 3
"""How many times a track's memory is replayed when a file is continued, so that the tracks stand as they stood."""


@dataclass(frozen=True)
class Settings:
    """How to track.

    Attributes:
        frames: stop after so many of a source; None for all.
        in_flight: frames of a source that are with the server at a time.
        quality: of the JPEGs that are sent, 1..100.
        score_threshold: what scores below only continues a track; None for the model's own.
        iou_threshold: of two boxes of a class that overlap more, the weaker is dropped; None for the model's own.
    """

    frames: int | None = None
    in_flight: int = 2
    quality: int = 92
    score_threshold: float | None = None
    iou_threshold: float | None = None


@dataclass
class Outcome:
    """What came of a source.

    Attributes:
        source: what it is called.
        live: whether it goes on while nobody looks.
        begun: whether its file could be begun or continued.
        totals: the times of its frames.
        track_ids: of all tracks that were seen.
        failed: frames that could not be read.
        example: why the first of them could not; empty if all could.
        dropped: frames of a live source that nobody took in time.
        next_frame: the number of the next one, if none is dropped.
        stopped: whether somebody stopped it before its end.
        lost: what ended it before the end; None if nothing did.
    """

    source: str = ""
    live: bool = False
    begun: bool = False
    totals: Totals = field(default_factory=Totals)
    track_ids: set[int] = field(default_factory=set)
    failed: int = 0
    example: str = ""
    dropped: int = 0
    next_frame: int = 0
    stopped: bool = False
    lost: TriptychError | OSError | None = None

    def add(self, tracked: Tracked) -> None:
        """Count one frame."""
        self.totals.add(tracked.times)
        self.dropped += tracked.line.frame - self.next_frame
        self.next_frame = tracked.line.frame + 1
        self.track_ids.update(track_id for track_id in tracked.line.track_ids if track_id is not None)
        if tracked.line.error:
            self.failed += 1
            self.example = self.example or f"frame {tracked.line.frame}: {tracked.line.error}"

    @property
    def answered(self) -> int:
        """How many frames have their objects."""
        return self.totals.frames - self.failed

    @property
    def reason(self) -> str:
        """What ended it before its end, with its name; empty if nothing did."""
        reason = str(self.lost or "")
        return reason if self.source in reason or not reason else f"{self.source}: {reason}"


@dataclass
class Tracking:
    """A source, a server and a file of tracks, ready to go.

    Attributes:
        source: where the frames come from.
        detector: the server.
        out: the file.
        done: what the file already holds.
        tracker: knows the tracks of the frames that are done.
        settings: how to track.
        score_threshold: the one that counts.
        stop: once it is set, the frame at hand is the last.
    """

    source: Source
    detector: PatientDetector
    out: Path
    done: Done
    tracker: Tracker
    settings: Settings
    score_threshold: float
    stop: threading.Event

    @property
    def expected(self) -> int | None:
        """How many frames there are to do; None where nobody knows."""
        frames = self.source.frames
        return self.settings.frames or (max(0, frames - self.done.next_frame) if frames else None)

    def run(self, listeners: Iterable[Callable[[Tracked], None]] = ()) -> Outcome:
        """Track until there are no more frames, the limit is reached, somebody stops it, or server or camera is lost.

        Args:
            listeners: called with each frame that is done.
        """
        outcome = Outcome(self.source.name, self.source.live, begun=True, next_frame=self.done.next_frame)
        try:
            with self._steps() as steps:
                for tracked in steps:
                    for listener in (outcome.add, *listeners):
                        listener(tracked)
                    if outcome.totals.frames == self.settings.frames:
                        break
                    if self.stop.is_set():
                        outcome.stopped = True
                        break
        except (RequestError, ImageError) as error:
            outcome.stopped = self.stop.is_set()
            outcome.lost = None if outcome.stopped else error
        except OSError as error:
            outcome.lost = error
        return outcome

    @contextmanager
    def _steps(self) -> Iterator[Generator[Tracked, None, None]]:
        settings = self.settings
        detect = partial(
            self.detector,
            score_threshold=min(self.score_threshold, LOW_SCORE),
            iou_threshold=settings.iou_threshold,
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


def check_free(out: Path, *, resume: bool, overwrite: bool) -> None:
    """Make sure that a file holds nothing that nobody asked to continue or to overwrite.

    Raises:
        ContractError: it does.
    """
    if out.exists() and out.stat().st_size and not (resume or overwrite):
        raise ContractError(f"{out} is not empty; continue it with --resume, or replace it with --overwrite")


def prepare(
    source: Source,
    detector: PatientDetector,
    out: Path,
    settings: Settings,
    *,
    resume: bool = False,
    overwrite: bool = False,
    stop: threading.Event,
    say: Callable[[str], None],
) -> Tracking:
    """Read how far the file has come, and bring the tracker there.

    Args:
        source: where the frames come from.
        detector: the server.
        out: the file.
        settings: how to track.
        resume: continue what the file holds.
        overwrite: replace what the file holds.
        stop: once it is set, the frame at hand is the last.
        say: hears where it goes on.

    Raises:
        ContractError: the file holds something that nobody asked to continue or to overwrite, tracks of another video,
            or no tracks at all.
        RequestError: the server does not say what it serves.
    """
    check_free(out, resume=resume, overwrite=overwrite)
    threshold = settings.score_threshold
    if threshold is None:
        threshold = detector.client.spec().score_threshold
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
    return Tracking(source, detector, out, done, tracker, settings, threshold, stop)
