"""Several sources at the same time, each in a thread of its own: what becomes of one does not end the others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from triptych.errors import MeasurementError, RequestError, TriptychError
from triptych.measure.run_file import Run
from triptych.video.detecting import PatientDetector
from triptych.video.journal import only_writer
from triptych.video.pipeline import Tracked
from triptych.video.recording import Recorder
from triptych.video.sources import file_stem, open_source, shown_name
from triptych.video.stages import Totals
from triptych.video.tracking import Outcome, Settings, Tracking, check_free, prepare

SIGNALS_S = 0.2
"""How long a signal may wait until it is handled."""

Listener = Callable[[Tracked], None]


@dataclass(frozen=True)
class Together:
    """What came of all sources.

    Attributes:
        outcomes: of each source, in the order given.
        run: the run that was recorded; None if none was.
        unmeasured: why no run was recorded, though one was wanted; None if that is not so.
    """

    outcomes: Sequence[Outcome]
    run: Run | None = None
    unmeasured: MeasurementError | None = None

    @property
    def totals(self) -> Totals:
        """The times of all frames."""
        return Totals.of(outcome.totals for outcome in self.outcomes)

    @property
    def lost(self) -> list[Outcome]:
        """The sources that ended before their end."""
        return [outcome for outcome in self.outcomes if outcome.lost]

    @property
    def server_error(self) -> RequestError | None:
        """What the server refused or why it is gone, if that ended a source."""
        return next((outcome.lost for outcome in self.outcomes if isinstance(outcome.lost, RequestError)), None)

    def error(self) -> TriptychError | OSError | None:
        """Return why sources ended before their end; None if none did."""
        if self.server_error or not self.lost:
            return self.server_error
        if len(self.outcomes) == 1:
            return self.outcomes[0].lost
        reasons = "; ".join(outcome.reason for outcome in self.lost)
        return TriptychError(f"{len(self.lost)} of {len(self.outcomes)} sources ended too early: {reasons}")

    def sentences(self) -> list[str]:
        """Return how many frames and tracks there were, and why the first frame of each source failed, if one did."""
        totals, many = self.totals, len(self.outcomes) > 1
        dropped = sum(outcome.dropped for outcome in self.outcomes)
        failed = sum(outcome.failed for outcome in self.outcomes)
        parts = [
            f"{totals.frames} frames{f' of {len(self.outcomes)} sources' if many else ''} in {totals.seconds:.1f} s",
            f"{totals.frames_per_s:.1f} frames/s",
            f"{sum(len(outcome.track_ids) for outcome in self.outcomes)} tracks",
            *([f"{dropped} frames dropped"] if dropped else []),
            *([f"{failed} failed"] if failed else []),
        ]
        examples = [
            f"{outcome.source}, {outcome.example}" if many else outcome.example
            for outcome in self.outcomes
            if outcome.failed
        ]
        return [", ".join(parts), *examples]


@dataclass
class Crew:
    """Tracks sources with one server.

    Attributes:
        detector: the server.
        settings: how to track each source.
        resume: continue what a file holds.
        overwrite: replace what a file holds.
        stop: once it is set, the frame at hand of each source is the last.
        say: hears what a person should know; called from several threads.
        watch: called when a source is opened, with what there is to do; gives who hears of each frame that is done.
    """

    detector: PatientDetector
    settings: Settings
    resume: bool = False
    overwrite: bool = False
    stop: threading.Event = field(default_factory=threading.Event)
    say: Callable[[str], None] = lambda _: None
    watch: Callable[[Tracking], Listener] = lambda _: lambda _: None

    def track(self, jobs: Sequence[tuple[str, Path]], recorder: Recorder | None = None) -> Together:
        """Track each source into its file; return when all have ended.

        Args:
            jobs: each source and its file.
            recorder: records the run, if one is wanted.

        Raises:
            ContractError: a file holds something that nobody asked to continue or to overwrite.
        """
        for _, out in jobs:
            check_free(out, resume=self.resume, overwrite=self.overwrite)
        with recorder or nullcontext():
            together = Together(self._in_threads(jobs, recorder))
            if recorder and together.totals.frames and not together.server_error and len(together.lost) < len(jobs):
                try:
                    return replace(together, run=recorder.write(together.outcomes, self.settings.in_flight))
                except MeasurementError as error:
                    return replace(together, unmeasured=error)
        return together

    def _in_threads(self, jobs: Sequence[tuple[str, Path]], recorder: Recorder | None) -> list[Outcome]:
        pool = ThreadPoolExecutor(len(jobs))
        try:
            working = [
                pool.submit(self._one, source, out, [recorder.listener()] if recorder else [], len(jobs) > 1)
                for source, out in jobs
            ]
            # Python handles a signal in this thread, and one that came to another thread does not end its wait.
            while (ended := wait(working, SIGNALS_S, FIRST_EXCEPTION)).not_done:
                if any(future.exception() for future in ended.done):
                    break
            return [future.result() for future in working]
        except BaseException:
            self.stop.set()  # a second Ctrl-C, or a fault of our own: the others end at their next frame
            raise
        finally:
            pool.shutdown(wait=False)

    def _one(self, name: str, out: Path, listeners: Sequence[Listener], among_others: bool) -> Outcome:
        """Track one source; among others, say at once if it is lost, unless it is the server that ended it."""
        try:
            with (
                closing(open_source(name, retry_s=self.detector.retry_s, stop=self.stop, say=self.say)) as source,
                only_writer(out),
            ):
                tracking = prepare(
                    source,
                    self.detector,
                    out,
                    self.settings,
                    resume=self.resume,
                    overwrite=self.overwrite,
                    stop=self.stop,
                    say=self.say,
                )
                outcome = tracking.run([self.watch(tracking), *listeners])
        except (TriptychError, OSError) as error:
            outcome = Outcome(shown_name(name), lost=error)
        if outcome.lost and among_others and not isinstance(outcome.lost, RequestError):
            self.say(f"{outcome.reason}; the other sources go on")
        return outcome


def track_files(sources: Sequence[str], directory: Path) -> list[Path]:
    """Return where the tracks of each source go: `<name>.jsonl`, or `<name>-2.jsonl` and so on where that is taken.

    >>> [path.name for path in track_files(["a/street.avi", "0", "b/street.mp4", "rtsp://host:554/live"], Path("out"))]
    ['street.jsonl', 'camera-0.jsonl', 'street-2.jsonl', 'host-554-live.jsonl']
    """
    taken, files = set[str](), list[Path]()
    for stem in map(file_stem, sources):
        unique, number = stem, 1
        while unique.casefold() in taken:
            number += 1
            unique = f"{stem}-{number}"
        taken.add(unique.casefold())
        files.append(directory / f"{unique}.jsonl")
    return files
