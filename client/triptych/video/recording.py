"""The run of a video: what `triptych track --run` keeps, in the same file as a load test."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType

from triptych.client import DetectionClient
from triptych.measure import attribution, intervals, run_file
from triptych.measure.attribution import Attribution, Requests
from triptych.measure.environment import describe_machine, settled_statistics, with_server
from triptych.measure.footprint import Footprint
from triptych.measure.footprint_sampler import FootprintSampler
from triptych.measure.histogram import Histogram
from triptych.measure.intervals import Answer
from triptych.measure.run_file import ClientSide, Environment, Failure, ImageSet, Run, Workload
from triptych.measure.traces import TracedRequest, Tracing
from triptych.measure.window import Window
from triptych.video.pipeline import Tracked
from triptych.video.stages import OWN_STAGES, Totals
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
    """

    before: Snapshot
    after: Snapshot
    traced: list[TracedRequest]
    footprint: Footprint | None = None


@dataclass
class Measurement:
    """Every frame of a run.

    Attributes:
        began_s: when the reading of the first one began, in seconds of `time.time`.
        answers: the latency of each frame, by its request's id.
        own_ms: milliseconds by id, then by each of `OWN_STAGES`.
        failed_at_s: when frames came out that could not be read, in seconds of `time.time`.
        example: why the first of them could not.
        truncated: how many frames have an answer that was cut off.
    """

    began_s: float = 0.0
    answers: dict[str, Answer] = field(default_factory=dict)
    own_ms: dict[str, dict[str, float]] = field(default_factory=dict)
    failed_at_s: list[float] = field(default_factory=list)
    example: str = ""
    truncated: int = 0
    _cpu_began_s: float = field(default_factory=time.process_time)
    _bytes: int = 0
    _digest: hashlib._Hash = field(default_factory=hashlib.sha256)

    def add(self, tracked: Tracked) -> None:
        """Count one frame, as soon as it is done."""
        now = time.time()
        if not self.began_s:
            self.began_s = now - tracked.times.total_ms / 1000
        self._bytes += len(tracked.encoded)
        self._digest.update(hashlib.sha256(tracked.encoded).digest())
        if tracked.line.error:
            self.failed_at_s.append(now)
            self.example = self.example or tracked.line.error
            return
        self.answers[tracked.request_id] = Answer(tracked.times.total_ms, now)
        self.own_ms[tracked.request_id] = {name: tracked.times.ms[name] for name in OWN_STAGES}
        self.truncated += tracked.truncated

    def run(
        self, environment: Environment, server: ServerSide, totals: Totals, in_flight: int, command: list[str]
    ) -> Run:
        """Return the run of at least one frame, with where its time went.

        Args:
            environment: where it ran.
            server: what the server saw of it.
            totals: of the same frames.
            in_flight: requests at a time.
            command: what was typed.
        """
        seconds = totals.seconds
        cpu_s = time.process_time() - self._cpu_began_s
        latencies_ms = {request_id: answer.latency_ms for request_id, answer in self.answers.items()}
        window = Window.between(server.before, server.after, list(latencies_ms.values()), seconds)
        requests = Requests.join(server.traced, latencies_ms, self.own_ms)
        failures = {"ImageError": Failure(len(self.failed_at_s), self.example)} if self.failed_at_s else {}
        return Run(
            started=datetime.fromtimestamp(self.began_s, timezone.utc).isoformat(timespec="seconds"),
            workload=Workload(
                loop="video",
                users=in_flight,
                rate_per_s=None,
                shape="constant",
                batch=1,
                sizes=[],
                processes=1,
                warmup_s=0.0,
                duration_s=seconds,
                images=ImageSet(len(latencies_ms) + len(self.failed_at_s), self._bytes, self._digest.hexdigest()),
            ),
            environment=environment,
            client=ClientSide(
                latencies=Histogram(latencies_ms.values()),
                by_request={},
                failures=failures,
                seconds=seconds,
                cpu_s=cpu_s,
                busiest=cpu_s / seconds if seconds else 0.0,
                truncated=self.truncated,
            ),
            server=dict(window.counters),
            attribution=attribution.from_requests(requests) if len(requests) else self._from_statistics(window),
            intervals=intervals.cut(self.answers, self.failed_at_s, requests, self.began_s, seconds, INTERVALS),
            command=command,
            interrupted=window.interrupted,
            footprint=server.footprint,
        )

    def _from_statistics(self, window: Window) -> Attribution:
        """Give the time outside the server to the client's own stages where they are known, else to the network."""
        means = attribution.from_statistics(window)
        mean = means.breakdowns["mean"]
        count = max(1, len(self.own_ms))
        own = {name: sum(frame_ms[name] for frame_ms in self.own_ms.values()) / count for name in OWN_STAGES}
        network_ms = mean.network_and_client_ms - sum(own.values())
        return replace(means, breakdowns={"mean": replace(mean, network_and_client_ms=network_ms, client=own)})


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
        self._sampler = FootprintSampler(client.address)
        self._measurement = Measurement()

    def __enter__(self) -> Recorder:
        self._tracing.__enter__()
        self._traces = self._tracing.start()
        self._before = settled_statistics(self._client)
        self._sampler.__enter__()
        return self

    def add(self, tracked: Tracked) -> None:
        """Count one frame, as soon as it is done."""
        self._measurement.add(tracked)

    def write(self, totals: Totals, in_flight: int) -> Run:
        """Write the run of the frames so far.

        Args:
            totals: of the same frames, at least one.
            in_flight: requests at a time.

        Raises:
            RequestError: the server is gone.
            ContractError: the run cannot be written.
        """
        footprint = self._sampler.stop()
        after = settled_statistics(self._client)
        traced = self._tracing.stop(len(self._measurement.answers)) if self._traces else []
        machine = describe_machine(self._client.address)
        environment = with_server(machine, self._client, self._model_repository)
        run = self._measurement.run(
            environment, ServerSide(self._before, after, traced, footprint), totals, in_flight, self._command
        )
        run_file.write(self._path, run)
        return run

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sampler.__exit__(kind, error, trace)
        self._tracing.__exit__(kind, error, trace)
