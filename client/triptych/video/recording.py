"""The run of one or several videos: what `triptych track --run` keeps, in the same file as a load test."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType

from triptych.client import DetectionClient
from triptych.measure import attribution, run_file
from triptych.measure.attribution import Answer, Requests
from triptych.measure.bounds import dependence
from triptych.measure.environment import describe_machine, settled_statistics, with_server
from triptych.measure.footprint import Footprint
from triptych.measure.footprint_sampler import FootprintSampler
from triptych.measure.histogram import Histogram
from triptych.measure.intervals import Timeline
from triptych.measure.power.figures import Power
from triptych.measure.power.sampler import PowerSampler, Span
from triptych.measure.run_file import ClientSide, Environment, Failure, ImageSet, Run, VideoSide, Workload
from triptych.measure.traces import TracedRequest, Tracing
from triptych.measure.window import Window
from triptych.video.pipeline import Tracked
from triptych.video.stages import OWN_STAGES, Totals
from triptych.video.tracking import Outcome
from triptych.wire.statistics import Snapshot

INTERVALS = 10
"""Equal parts of a run's time, as samples for a comparison."""


@dataclass(frozen=True)
class ServerSide:
    """What the server saw.

    Attributes:
        before: its counters before the first frame.
        after: those after the last one.
        traced: its part in each request; empty without traces.
        footprint: what its processes held; None where they cannot be seen.
        power: what its machine took.
    """

    before: Snapshot
    after: Snapshot
    traced: list[TracedRequest]
    footprint: Footprint | None = None
    power: Power | None = None


@dataclass
class Frames:
    """The frames of one source, counted by its thread alone.

    Attributes:
        began_s: when the reading of the first one began, in seconds of `time.monotonic`; 0 if there was none.
        answers: what each frame took, by its request's id.
        failed_at_s: when frames came out that could not be read, in seconds of `time.monotonic`.
        example: why the first of them could not.
        truncated: how many frames have an answer that was cut off.
        sent_bytes: of all of them together, encoded.
        hashes: SHA-256 of each, one after the other.
    """

    began_s: float = 0.0
    answers: dict[str, Answer] = field(default_factory=dict)
    failed_at_s: list[float] = field(default_factory=list)
    example: str = ""
    truncated: int = 0
    sent_bytes: int = 0
    hashes: bytearray = field(default_factory=bytearray)

    def add(self, tracked: Tracked) -> None:
        """Count one frame, as soon as it is done."""
        now = time.monotonic()
        if not self.began_s:
            self.began_s = now - tracked.times.total_ms / 1000
        self.sent_bytes += len(tracked.encoded)
        self.hashes += hashlib.sha256(tracked.encoded).digest()
        if tracked.line.error:
            self.failed_at_s.append(now)
            self.example = self.example or tracked.line.error
            return
        own_ms = {name: tracked.times.ms[name] for name in OWN_STAGES}
        self.answers[tracked.request_id] = Answer(tracked.times.total_ms, now, own_ms)
        self.truncated += tracked.truncated

    def side(self, outcome: Outcome) -> VideoSide:
        """Return what became of the source."""
        return VideoSide(
            latencies=Histogram(answer.latency_ms for answer in self.answers.values()),
            failed=len(self.failed_at_s),
            dropped=outcome.dropped,
            seconds=outcome.totals.seconds,
            lost=str(outcome.lost or ""),
        )


@dataclass
class Measurement:
    """Every frame of a run.

    Attributes:
        sources: the frames of each source, in the order given.
        started: when it began, in UTC.
    """

    sources: list[Frames] = field(default_factory=list)
    started: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    _cpu_began_s: float = field(default_factory=time.process_time)

    def run(
        self,
        environment: Environment,
        server: ServerSide,
        outcomes: Sequence[Outcome],
        in_flight: int,
        command: list[str],
    ) -> Run:
        """Return the run of at least one frame, with where its time went.

        Args:
            environment: where it ran.
            server: what the server saw of it.
            outcomes: what came of each source.
            in_flight: requests of a source at a time.
            command: what was typed.
        """
        cpu_s = time.process_time() - self._cpu_began_s
        totals = Totals.of(outcome.totals for outcome in outcomes)
        seconds = totals.seconds
        answers = {name: answer for source in self.sources for name, answer in source.answers.items()}
        failed_at_s = [at_s for source in self.sources for at_s in source.failed_at_s]
        timeline = Timeline(self.began_s, seconds, INTERVALS)
        for answer in answers.values():
            timeline.answer(answer.at_s, answer.latency_ms)
        for at_s in failed_at_s:
            timeline.failure(at_s)
        latencies = Histogram(answer.latency_ms for answer in answers.values())
        window = Window.between(server.before, server.after, latencies, seconds)
        requests = Requests.join(server.traced, answers)
        example = next((source.example for source in self.sources if source.example), "")
        return Run(
            started=self.started.isoformat(timespec="seconds"),
            workload=Workload(
                loop="video",
                users=in_flight * len(outcomes),
                rate_per_s=None,
                shape="constant",
                batch=1,
                sizes=[],
                processes=1,
                warmup_s=0.0,
                duration_s=seconds,
                images=self.images(),
                sources=[outcome.source for outcome in outcomes],
            ),
            environment=environment,
            client=ClientSide(
                latencies=latencies,
                by_request={},
                failures={"ImageError": Failure(len(failed_at_s), example)} if failed_at_s else {},
                seconds=seconds,
                cpu_s=cpu_s,
                busiest=cpu_s / seconds if seconds else 0.0,
                truncated=sum(source.truncated for source in self.sources),
                dependence=dependence(
                    [answer.latency_ms for answer in sorted(answers.values(), key=lambda answer: answer.at_s)]
                ),
                videos=[source.side(outcome) for source, outcome in zip(self.sources, outcomes, strict=True)],
            ),
            server=dict(window.counters),
            attribution=(
                attribution.from_requests(requests, latencies)
                if len(requests)
                else attribution.from_statistics(window, _own_ms(answers))
            ),
            intervals=timeline.intervals(requests),
            command=command,
            interrupted=window.interrupted,
            footprint=server.footprint,
            power=server.power,
        )

    @property
    def began_s(self) -> float:
        """When the reading of the first frame of all began, in seconds of `time.monotonic`."""
        return min(source.began_s for source in self.sources if source.began_s)

    def images(self) -> ImageSet:
        """Describe what was sent: the frames of one source after those of another, whatever the order of time."""
        return ImageSet(
            sum(len(source.answers) + len(source.failed_at_s) for source in self.sources),
            sum(source.sent_bytes for source in self.sources),
            hashlib.sha256(b"".join(source.hashes for source in self.sources)).hexdigest(),
        )


def _own_ms(answers: Mapping[str, Answer]) -> dict[str, float]:
    """Return the means of the client's own stages."""
    count = max(1, len(answers))
    return {name: sum(answer.own_ms[name] for answer in answers.values()) / count for name in OWN_STAGES}


class Recorder:
    """Has the server trace every request of a block, and records what both sides see of it."""

    def __init__(self, client: DetectionClient, path: Path, model_repository: Path | None, command: list[str]) -> None:
        """Record what goes to the server of this client.

        Args:
            client: the one that sends the frames.
            path: where the run is written to.
            model_repository: what the server serves, if it is at hand.
            command: what was typed.
        """
        self._client, self._command = client, command
        self._path, self._model_repository = path, model_repository
        self._tracing = Tracing(client.address, client.credentials)
        self._sampler, self._meter = FootprintSampler(client.address), PowerSampler(client.address)
        self._measurement = Measurement()
        self._traced: list[TracedRequest] = []
        self._polling = threading.Lock()

    def __enter__(self) -> Recorder:
        self._tracing.__enter__()
        self._traces = self._tracing.start()
        self._meter.__enter__()
        self._before = settled_statistics(self._client)
        self._sampler.__enter__()
        return self

    def listener(self) -> Callable[[Tracked], None]:
        """Return who hears of each frame of the next source that is done."""
        frames = Frames()
        self._measurement.sources.append(frames)

        def add(tracked: Tracked) -> None:
            frames.add(tracked)
            if self._traces and self._polling.acquire(blocking=False):  # each source has a thread
                try:
                    self._traced += self._tracing.poll()
                finally:
                    self._polling.release()

        return add

    def write(self, outcomes: Sequence[Outcome], in_flight: int) -> Run:
        """Write the run of the frames so far.

        Args:
            outcomes: what came of each source that has a listener, in the same order; at least one frame in all.
            in_flight: requests of a source at a time.

        Raises:
            RequestError: the server is gone.
            ContractError: the run cannot be written.
        """
        footprint = self._sampler.stop()
        after = settled_statistics(self._client)
        seconds, began_s = Totals.of(outcome.totals for outcome in outcomes).seconds, self._measurement.began_s
        span = Span(began_s, began_s + seconds, seconds / INTERVALS, INTERVALS)
        power = self._meter.stop(span, sum(outcome.answered for outcome in outcomes))
        self._traced += self._tracing.stop(sum(outcome.answered for outcome in outcomes)) if self._traces else ()
        machine = describe_machine(self._client.address)
        environment = with_server(machine, self._client, self._model_repository)
        run = self._measurement.run(
            environment,
            ServerSide(self._before, after, self._traced, footprint, power),
            outcomes,
            in_flight,
            self._command,
        )
        run_file.write(self._path, run)
        return run

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sampler.__exit__(kind, error, trace)
        self._meter.__exit__(kind, error, trace)
        self._tracing.__exit__(kind, error, trace)
