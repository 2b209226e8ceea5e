"""How long clients wait for the deployed ensemble, one request at a time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from triptych import DetectionClient
from triptych.measure.bounds import bound_ms, dependence, fewest, too_few
from triptych.measure.histogram import Histogram
from triptych.wire.credentials import LOCAL, Credentials
from triptych_build.verify.truth import read_image

WARM_UP = 5
TIMEOUT_S = 60.0

PERCENT = 95
"""The percentile that may have a limit."""

REQUESTS = fewest(PERCENT)
"""So many, or as many as `SECONDS` allow, but no fewer than 20."""

SECONDS = 6.0

LIMITED_REQUESTS, LIMITED_SECONDS = 3 * REQUESTS, 30.0
"""The same where the p95 has a limit, but no fewer than `REQUESTS`: those that depend on each other tell less."""


@dataclass(frozen=True)
class Latency:
    """The client's latency, one request at a time.

    Attributes:
        requests: how many were measured.
        p50_ms: their median.
        p95_ms: their 95th percentile.
        p95_at_most_ms: what that is at most, with 99% confidence (`triptych.measure.bounds`); None if the requests are
            too few to tell.
        dependence: of how many requests one tells something of its own.
    """

    requests: int
    p50_ms: float
    p95_ms: float
    p95_at_most_ms: float | None
    dependence: float = 1.0

    @classmethod
    def of(cls, latencies_ms: Sequence[float]) -> Latency:
        """Return that of requests, in the order in which they were sent."""
        histogram, depends = Histogram(latencies_ms), dependence(latencies_ms)
        return cls(
            requests=histogram.count,
            p50_ms=histogram.percentile_ms(50),
            p95_ms=histogram.percentile_ms(PERCENT),
            p95_at_most_ms=bound_ms(histogram, PERCENT, depends),
            dependence=depends,
        )

    @property
    def too_few(self) -> str:
        """Why the p95 has no bound, in words; empty if it has one."""
        return too_few(self.requests, PERCENT, self.dependence) if self.p95_at_most_ms is None else ""

    def __str__(self) -> str:
        bound = self.too_few or f"at most {self.p95_at_most_ms:.1f} ms, of {self.requests} requests"
        return f"p50 {self.p50_ms:.1f} ms, p95 {self.p95_ms:.1f} ms ({bound})"


def measure_latency(
    address: str, images: Sequence[Path], credentials: Credentials = LOCAL, *, has_limit: bool = False
) -> Latency:
    """Measure the client's latency, one request at a time, and longer where it has a limit.

    Raises:
        RequestError: the server does not answer.
    """
    least, most, seconds = (REQUESTS, LIMITED_REQUESTS, LIMITED_SECONDS) if has_limit else (20, REQUESTS, SECONDS)
    encoded = [read_image(image) for image in images[:most]]
    latencies_ms: list[float] = []
    with DetectionClient(address, timeout_s=TIMEOUT_S, credentials=credentials) as client:
        for number in range(WARM_UP):
            client.detect(encoded[number % len(encoded)])
        deadline = time.monotonic() + seconds
        while len(latencies_ms) < most and (len(latencies_ms) < least or time.monotonic() < deadline):
            started = time.perf_counter()
            client.detect(encoded[len(latencies_ms) % len(encoded)])
            latencies_ms.append(1000 * (time.perf_counter() - started))
    return Latency.of(latencies_ms)
