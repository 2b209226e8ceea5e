"""What the load generator saw of its requests: a process reports it, and the reports of all are added up."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, NamedTuple

from triptych.measure.attribution import LATENESS, Answer
from triptych.measure.bounds import dependence
from triptych.measure.histogram import Histogram
from triptych.measure.intervals import Timeline
from triptych.measure.joining import Joined
from triptych.measure.run_file import Failure
from triptych.measure.traces import TracedRequest
from triptych_loadtest.load_test import LoadTest, Phase
from triptych_loadtest.loops import RequestUnsent

MOST_IN_ORDER = 50_000
"""So many requests, the first ones, show how much one depends on the one before."""


class Answered(NamedTuple):
    """A request that succeeded.

    Attributes:
        name: of its kind.
        request_id: which it carried.
        latency_ms: from when it was due.
        late_ms: from when it was due until it was sent.
        at_s: when its answer came, in seconds of `time.monotonic`, which the processes of a machine share.
    """

    name: str
    request_id: str
    latency_ms: float
    late_ms: float
    at_s: float


@dataclass
class Report:
    """What one process saw since its last report; a listener for Locust's request event.

    Attributes:
        answers: the requests that succeeded.
        failures: of those that failed, the name of the error's class, its message and when, as in `Answered`.
        unsent: how many were due and were not sent.
        truncated: how many of those that succeeded have an answer that was cut off.
        cpu_s: CPU time of the process.
        done: whether the phase is over.
    """

    answers: list[Answered] = field(default_factory=list)
    failures: list[tuple[str, str, float]] = field(default_factory=list)
    unsent: int = 0
    truncated: int = 0
    cpu_s: float = 0.0
    done: bool = False

    def __call__(
        self,
        name: str,
        response_time: float,
        exception: BaseException | None,
        context: dict[str, Any],
        **_other: object,
    ) -> None:
        """Take one request from Locust's event."""
        now = time.monotonic()
        if exception is None:
            self.answers.append(Answered(name, context["request_id"], response_time, context["late_ms"], now))
            self.truncated += context["truncated"]
        elif isinstance(exception, RequestUnsent):
            self.unsent += 1
        else:
            self.failures.append((type(exception).__name__, str(exception), now))


class Recorder:
    """All that was seen of the requests of a phase, in memory that does not grow with their number.

    Attributes:
        latencies: of the requests that succeeded, by their name.
        failures: by the name of the error's class.
        unsent: how many were due and were not sent.
        truncated: how many of the requests that succeeded have an answer that was cut off.
        late_ms: of those that succeeded, in sum, from when they were due until they were sent.
        cpu_s: CPU time of each process.
        last_s: when the last request ended, in seconds of `time.monotonic`.
        timeline: the same in parts of the phase.
        joined: the requests that succeeded and that the server traced.
    """

    def __init__(self, test: LoadTest, phase: Phase, *, traced: bool = False) -> None:
        """Record a phase of a load test; `traced` says whether traces are to come."""
        self.latencies: defaultdict[str, Histogram] = defaultdict(Histogram)
        self.failures: dict[str, Failure] = {}
        self.unsent = self.truncated = 0
        self.late_ms = 0.0
        self.cpu_s: defaultdict[int, float] = defaultdict(float)
        self.last_s = phase.begins_s
        self.timeline = Timeline(phase.begins_s, phase.ends_s - phase.begins_s, test.intervals)
        self.joined = Joined()
        self._traced, self._on_time = traced, test.profile.loop != "closed"
        self._in_order: list[tuple[float, float]] = []

    @property
    def all_latencies(self) -> Histogram:
        """Latencies of all requests, whatever their names."""
        together = Histogram()
        for latencies in self.latencies.values():
            together.merge(latencies)
        return together

    @property
    def own_ms(self) -> dict[str, float]:
        """Means of the client's own stages."""
        count = self.all_latencies.count
        return {LATENESS: self.late_ms / count} if self._on_time and count else {}

    @property
    def dependence(self) -> float:
        """Of how many requests one tells something of its own."""
        return dependence([latency_ms for _, latency_ms in sorted(self._in_order, key=itemgetter(0))])

    def take(self, process: int, report: Report) -> None:
        """Add what a process saw."""
        for answered in report.answers:
            self.latencies[answered.name].add(answered.latency_ms)
            self.timeline.answer(answered.at_s, answered.latency_ms)
            self.late_ms += answered.late_ms
            self.last_s = max(self.last_s, answered.at_s)
            if len(self._in_order) < MOST_IN_ORDER:
                self._in_order.append((answered.at_s, answered.latency_ms))
            if self._traced:
                own_ms = {LATENESS: answered.late_ms} if self._on_time else {}
                self.joined.answer(answered.request_id, Answer(answered.latency_ms, answered.at_s, own_ms))
        for kind, message, at_s in report.failures:
            known = self.failures.get(kind, Failure(0, message))
            self.failures[kind] = Failure(known.count + 1, known.example)
            self.timeline.failure(at_s)
            self.last_s = max(self.last_s, at_s)
        self.unsent += report.unsent
        self.truncated += report.truncated
        self.cpu_s[process] += report.cpu_s

    def trace(self, traced: Iterable[TracedRequest]) -> None:
        """Add what the server saw."""
        self.joined.traced(traced)
