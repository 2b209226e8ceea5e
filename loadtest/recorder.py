"""What the load generator saw of its requests; those of several processes can be added up."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from triptych.histogram import Histogram
from triptych.run_file import Failure


@dataclass
class Recorder:
    """Latencies of the requests that succeeded, and failures by kind; a listener for Locust's request event.

    Attributes:
        latencies: all of them, in milliseconds.
        latencies_ms: each by the id that its request carried.
        failures: by the name of the error's class.
        last_s: when the last answer came, by `time.perf_counter`, which all processes of a machine share on Linux.
    """

    latencies: Histogram = field(default_factory=Histogram)
    latencies_ms: dict[str, float] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)
    last_s: float = 0.0

    def __call__(
        self, response_time: float, exception: BaseException | None, context: dict[str, Any], **_other: object
    ) -> None:
        """Take one request from Locust's event."""
        self.last_s = time.perf_counter()
        if exception is None:
            self.latencies.add(response_time)
            self.latencies_ms[context["request_id"]] = response_time
        else:
            self._fail(type(exception).__name__, Failure(1, str(exception)))

    def _fail(self, kind: str, failure: Failure) -> None:
        known = self.failures.get(kind, Failure(0, failure.example))
        self.failures[kind] = Failure(known.count + failure.count, known.example)

    def take(self) -> dict[str, Any]:
        """All of it as plain data for another process; this recorder is empty afterwards."""
        taken = {
            "latencies": self.latencies.to_json(),
            "latencies_ms": self.latencies_ms,
            "failures": {kind: [failure.count, failure.example] for kind, failure in self.failures.items()},
            "last_s": self.last_s,
        }
        self.latencies, self.latencies_ms, self.failures = Histogram(), {}, {}
        return taken

    def merge(self, taken: dict[str, Any]) -> None:
        """Add what another process has taken."""
        self.latencies.merge(Histogram.from_json(taken["latencies"]))
        self.last_s = max(self.last_s, taken["last_s"])
        self.latencies_ms |= taken["latencies_ms"]
        for kind, (count, example) in taken["failures"].items():
            self._fail(kind, Failure(count, example))
