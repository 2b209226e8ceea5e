"""What the load generator saw of its requests; what several processes saw can be added up."""

from __future__ import annotations

import os
import platform
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from triptych.measure.histogram import Histogram
from triptych.measure.intervals import Answer
from triptych.measure.run_file import Failure


@dataclass
class Recorder:
    """Latencies of the requests that succeeded, and failures by kind; a listener for Locust's request event.

    Attributes:
        latencies: in milliseconds, by the request's name.
        answers: by the id that the request carried.
        failures: by the name of the error's class.
        failed_at_s: when each failed, in seconds of `time.time`.
        truncated: how many of the requests that succeeded have an answer that was cut off.
        cpu_s: CPU time of each process that sent requests, since it began to.
        last_s: when the last request ended, in seconds of `time.time`, which several machines share.
    """

    latencies: defaultdict[str, Histogram] = field(default_factory=lambda: defaultdict(Histogram))
    answers: dict[str, Answer] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)
    failed_at_s: list[float] = field(default_factory=list)
    truncated: int = 0
    cpu_s: dict[str, float] = field(default_factory=dict)
    last_s: float = 0.0
    _cpu_began_s: float = field(default_factory=time.process_time)

    def __call__(
        self,
        name: str,
        response_time: float,
        exception: BaseException | None,
        context: dict[str, Any],
        **_other: object,
    ) -> None:
        """Take one request from Locust's event."""
        self.last_s = time.time()
        if exception is None:
            self.latencies[name].add(response_time)
            self.answers[context["request_id"]] = Answer(response_time, self.last_s)
            self.truncated += context.get("truncated", False)
        else:
            self.failed_at_s.append(self.last_s)
            self._fail(type(exception).__name__, Failure(1, str(exception)))

    def _fail(self, kind: str, failure: Failure) -> None:
        known = self.failures.get(kind, Failure(0, failure.example))
        self.failures[kind] = Failure(known.count + failure.count, known.example)

    @property
    def all_latencies(self) -> Histogram:
        """Latencies of all requests, whatever their names."""
        together = Histogram()
        for latencies in self.latencies.values():
            together.merge(latencies)
        return together

    def take(self) -> dict[str, Any]:
        """Return all of it as plain data for another process, and empty this recorder."""
        cpu_s = time.process_time()
        taken = {
            "latencies": {name: latencies.to_json() for name, latencies in self.latencies.items()},
            "answers": {request_id: (answer.latency_ms, answer.at_s) for request_id, answer in self.answers.items()},
            "failures": {kind: (failure.count, failure.example) for kind, failure in self.failures.items()},
            "failed_at_s": self.failed_at_s,
            "truncated": self.truncated,
            "cpu_s": {f"{platform.node()}:{os.getpid()}": cpu_s - self._cpu_began_s},
            "last_s": self.last_s,
        }
        self.latencies, self.answers, self.failures, self.failed_at_s = defaultdict(Histogram), {}, {}, []
        self.truncated, self._cpu_began_s = 0, cpu_s
        return taken

    def merge(self, taken: dict[str, Any]) -> None:
        """Add what a recorder has taken."""
        for name, latencies in taken["latencies"].items():
            self.latencies[name].merge(Histogram.from_json(latencies))
        for request_id, answer in taken["answers"].items():
            self.answers[request_id] = Answer(*answer)
        for kind, (count, example) in taken["failures"].items():
            self._fail(kind, Failure(count, example))
        self.failed_at_s += taken["failed_at_s"]
        self.truncated += taken["truncated"]
        for process, cpu_s in taken["cpu_s"].items():
            self.cpu_s[process] = self.cpu_s.get(process, 0.0) + cpu_s
        self.last_s = max(self.last_s, taken["last_s"])
