"""Where the time of a load's last seconds went, while it goes on: the server's counters and what clients saw."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from triptych.contract import DETECTION, STAGES
from triptych.errors import TriptychError
from triptych.measure import attribution
from triptych.measure.attribution import NETWORK, OVERHEAD
from triptych.measure.histogram import Histogram
from triptych.measure.traces import PARTS
from triptych.measure.window import Window, difference
from triptych.wire.statistics import Counters, Snapshot

POLLS = 6
"""How many polls are kept; the table shows the time between the first and the last of them."""


def rows(window: Window, failures: int) -> list[dict[str, Any]]:
    """Return the window as a table: rows for the stages, for what is between and around them, and for the client.

    Args:
        window: with at least one answer.
        failures: how many requests failed by the client's count.
    """
    mean = attribution.from_statistics(window).breakdowns["mean"]
    owners = mean.owners()
    table: list[dict[str, Any]] = []
    for stage in STAGES:
        counters = window.counters.get(stage.name, Counters())
        table.append(
            {
                "stage": stage.name,
                "rate": counters.requests / window.duration_s,
                **{part: counters.mean_ms(part) for part in (*PARTS, "total")},
                "batch": counters.mean_batch,
                "failures": counters.failures,
            }
        )
    table += [{"stage": name, "total": owners[name]} for name in (OVERHEAD, NETWORK)]
    table += [{"stage": "client, end to end", "total": mean.total_ms, "failures": failures}]
    table[-1]["rate"] = window.latencies.count / window.duration_s
    for row in table:
        row["share"] = row["total"] / mean.total_ms
        if row["stage"] == max(owners, key=lambda name: owners[name]):
            row["note"] = attribution.owner_sentence(mean, "mean")
    return table


@dataclass
class Live:
    """The last seconds of a load.

    Attributes:
        polls: the time on the clock of `time.monotonic`, the server's counters, and what the client has seen since the
            poll before: latencies in milliseconds of the answers, and how many requests failed.
        why_empty: why there is nothing to show; empty if there is.
    """

    polls: deque[tuple[float, Snapshot, list[float], int]] = field(default_factory=lambda: deque(maxlen=POLLS))
    why_empty: str = "the server has not been asked yet"
    _latencies_ms: list[float] = field(default_factory=list)
    _failures: int = 0

    def count(self, latencies_ms: Iterable[float], failures: int) -> None:
        """Take what clients saw."""
        self._latencies_ms += latencies_ms
        self._failures += failures

    def poll(self, at_s: float, counters: Snapshot | TriptychError) -> None:
        """Take the server's counters, or the error where it did not answer."""
        latencies_ms, failures = self._latencies_ms, self._failures
        self._latencies_ms, self._failures = [], 0
        if isinstance(counters, TriptychError):
            self.polls.clear()
            self.why_empty = str(counters)
            return
        if self.polls and _requests(counters) < _requests(self.polls[-1][1]):
            self.polls.clear()  # the server was restarted, and counts from zero
        self.polls.append((at_s, counters, latencies_ms, failures))
        window = self.window
        seen = window.latencies.count and _requests(window.counters)
        self.why_empty = "" if seen else "no request was answered in the last seconds"

    @property
    def window(self) -> Window:
        """What came between the first poll and the last; there must be one."""
        (first_s, before, *_), *later = self.polls
        last_s, after, *_ = self.polls[-1]
        latencies_ms = [latency_ms for _, _, latencies_ms, _ in later for latency_ms in latencies_ms]
        return Window(Histogram(latencies_ms), last_s - first_s, difference(before, after))

    def rows(self) -> list[dict[str, Any]]:
        """Return the table; while there is none, one row that says why."""
        if self.why_empty:
            return [{"stage": "–", "note": self.why_empty}]
        return rows(self.window, sum(failures for *_, failures in list(self.polls)[1:]))


def _requests(counters: Snapshot) -> int:
    return counters[DETECTION.name].requests if DETECTION.name in counters else 0
