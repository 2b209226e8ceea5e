"""Latencies as a histogram: small however many there are, exact to half a percent, and histograms can be added up."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from ddsketch import DDSketch

from triptych.errors import ContractError

RELATIVE_ACCURACY = 0.005
"""A percentile that is read back is within this share of the true one."""

SHORTEST_MS = 1e-6
"""What is shorter counts as this long: the logarithmic bins have no place for zero."""


class Histogram:
    """Latencies in milliseconds, in DDSketch's logarithmic bins.

    With gamma = (1 + a) / (1 - a), where a is the relative accuracy, bin k holds what is longer than gamma^(k-1) and
    at most gamma^k. Count, sum, shortest and longest are exact. (Masson, Rim and Lee, DDSketch, VLDB 2019.)
    """

    def __init__(self, latencies_ms: Iterable[float] = ()) -> None:
        """A histogram of these latencies, in milliseconds."""
        self._sketch: Any = DDSketch(RELATIVE_ACCURACY)
        for latency_ms in latencies_ms:
            self.add(latency_ms)

    def add(self, latency_ms: float) -> None:
        """Count one latency."""
        self._sketch.add(max(latency_ms, SHORTEST_MS))

    def merge(self, other: Histogram) -> None:
        """Count all that `other` has counted."""
        self._sketch.merge(other._sketch)

    @property
    def count(self) -> int:
        """How many latencies there are."""
        return int(self._sketch.count)

    @property
    def mean_ms(self) -> float:
        """Their mean; 0 if there are none."""
        return float(self._sketch.avg) if self.count else 0.0

    def percentile_ms(self, percent: float) -> float:
        """The latency at a percentile, 0..100; 0 if there are none."""
        if not self.count:
            return 0.0
        value = float(self._sketch.get_quantile_value(percent / 100))
        return float(min(max(value, self._sketch._min), self._sketch._max))

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads: plain numbers and lists."""
        store = self._sketch._store
        bins = [[key, round(count)] for key, count in enumerate(store.bins, start=store.offset) if count]
        return {
            "relative_accuracy": RELATIVE_ACCURACY,
            "count": self.count,
            "sum_ms": self._sketch.sum,
            "min_ms": self._sketch._min if self.count else 0.0,
            "max_ms": self._sketch._max if self.count else 0.0,
            "bins": bins,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Histogram:
        """Read back what `to_json` gave.

        Raises:
            ContractError: it is no such thing, or its bins are others than ours.
        """
        histogram = cls()
        sketch = histogram._sketch
        try:
            if not math.isclose(data["relative_accuracy"], RELATIVE_ACCURACY):
                raise ContractError(
                    f"a histogram of relative accuracy {RELATIVE_ACCURACY} was expected, but this one has "
                    f"{data['relative_accuracy']}"
                )
            for key, count in data["bins"]:
                sketch.add(sketch._mapping.value(key), count)
            if histogram.count != data["count"]:
                raise ContractError(f"a histogram says it counts {data['count']}, but its bins hold {histogram.count}")
            if histogram.count:
                sketch._sum, sketch._min, sketch._max = data["sum_ms"], data["min_ms"], data["max_ms"]
        except (KeyError, TypeError, ValueError) as error:
            raise ContractError(f"a histogram cannot be read: {type(error).__name__} {error}") from error
        return histogram

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Histogram) and self.to_json() == other.to_json()

    __hash__ = None  # type: ignore[assignment]  # it changes
