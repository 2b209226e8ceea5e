"""Latencies as a histogram: small however many there are, exact to half a percent, and histograms can be added up."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from triptych.errors import ContractError

RELATIVE_ACCURACY = 0.005
"""A percentile that is read back is within this share of the true one."""

SHORTEST_MS = 1e-6
"""What is shorter counts as this long: the logarithmic bins have no place for zero."""

_GAMMA = (1 + RELATIVE_ACCURACY) / (1 - RELATIVE_ACCURACY)


class Histogram:
    """Latencies in milliseconds, in logarithmic bins.

    With gamma = (1 + a) / (1 - a), where a is the relative accuracy, bin k holds what is longer than gamma^(k-1) and
    at most gamma^k. Count, sum, shortest and longest are exact. (Masson, Rim and Lee, DDSketch, VLDB 2019.)
    """

    def __init__(self, latencies_ms: Iterable[float] = ()) -> None:
        """Count these latencies, in milliseconds."""
        self.count = 0
        self._sum_ms, self._min_ms, self._max_ms = 0.0, math.inf, -math.inf
        self._bins: Counter[int] = Counter()
        for latency_ms in latencies_ms:
            self.add(latency_ms)

    def add(self, latency_ms: float) -> None:
        """Count one latency."""
        latency_ms = max(float(latency_ms), SHORTEST_MS)
        self._bins[math.ceil(math.log(latency_ms) / math.log(_GAMMA))] += 1
        self._extend(1, latency_ms, latency_ms, latency_ms)

    def merge(self, other: Histogram) -> None:
        """Count all that `other` has counted."""
        self._bins.update(other._bins)
        self._extend(other.count, other._sum_ms, other._min_ms, other._max_ms)

    def _extend(self, count: int, sum_ms: float, min_ms: float, max_ms: float) -> None:
        self.count += count
        self._sum_ms += sum_ms
        self._min_ms, self._max_ms = min(self._min_ms, min_ms), max(self._max_ms, max_ms)

    @property
    def mean_ms(self) -> float:
        """Their mean; 0 if there are none."""
        return self._sum_ms / self.count if self.count else 0.0

    def percentile_ms(self, percent: float) -> float:
        """Return the shortest latency that at least so many percent, 0..100, do not exceed; 0 if there are none.

        It is the nearest rank, definition 1 of Hyndman and Fan, "Sample quantiles in statistical packages", 1996.
        """
        key = self._bin_of(math.ceil(percent * self.count / 100 - 1e-9))
        return 0.0 if key is None else self._within(2 * _GAMMA**key / (1 + _GAMMA))

    def longest_ms_of(self, rank: int) -> float:
        """Return how long the latency of a rank is at most, the shortest one having rank 1; 0 if there are none."""
        key = self._bin_of(rank)
        return 0.0 if key is None else self._within(_GAMMA**key)

    def count_above(self, latency_ms: float) -> int:
        """Return how many are longer, those included that may be, since they share a bin with it."""
        return sum(count for key, count in self._bins.items() if self._within(_GAMMA**key) > latency_ms)

    def _bin_of(self, rank: int) -> int | None:
        passed = 0
        for key, count in sorted(self._bins.items()):
            passed += count
            if passed >= rank:
                return key
        return None

    def _within(self, latency_ms: float) -> float:
        return min(max(latency_ms, self._min_ms), self._max_ms)

    def to_json(self) -> dict[str, Any]:
        """Return plain numbers and lists, for `from_json`."""
        shortest_ms, longest_ms = (self._min_ms, self._max_ms) if self.count else (0.0, 0.0)
        bins = sorted(self._bins.items())
        return asdict(Saved(RELATIVE_ACCURACY, self.count, self._sum_ms, shortest_ms, longest_ms, bins))

    @classmethod
    def from_json(cls, data: Any) -> Histogram:
        """Read back what `to_json` gave.

        Raises:
            ContractError: it is something else, or its bins are not ours.
        """
        try:
            saved = msgspec.convert(data, Saved)
        except msgspec.ValidationError as error:
            raise ContractError(f"a histogram cannot be read: {error}") from error
        if not math.isclose(saved.relative_accuracy, RELATIVE_ACCURACY):
            raise ContractError(
                f"a histogram of relative accuracy {RELATIVE_ACCURACY} was expected, but this one has "
                f"{saved.relative_accuracy}"
            )
        histogram = cls()
        histogram._bins.update(dict(saved.bins))
        if histogram._bins.total() != saved.count:
            raise ContractError(
                f"a histogram says it counts {saved.count}, but its bins hold {histogram._bins.total()}"
            )
        if saved.count:
            histogram._extend(saved.count, saved.sum_ms, saved.min_ms, saved.max_ms)
        return histogram

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Histogram) and self.to_json() == other.to_json()

    __hash__ = None  # type: ignore[assignment]  # it changes


@dataclass(frozen=True)
class Saved:
    """A histogram of latencies in a file.

    With gamma = (1 + a) / (1 - a), a the relative accuracy, bin k holds the latencies above gamma^(k-1) and up to
    gamma^k milliseconds. (DDSketch, VLDB 2019.)

    Attributes:
        relative_accuracy: a percentile read from the bins is within this share of the true one.
        count: how many latencies there are.
        sum_ms: their sum.
        min_ms, max_ms: the shortest and the longest; 0 if there are none.
        bins: [k, count], by k.
    """

    relative_accuracy: float
    count: int
    sum_ms: float
    min_ms: float
    max_ms: float
    bins: list[tuple[int, int]]
