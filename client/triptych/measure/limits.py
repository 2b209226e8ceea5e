"""Limits of a comparison: what B may lose against A and must gain, held against the intervals of what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from triptych.errors import ContractError
from triptych.measure.comparison import Comparison
from triptych.measure.ratio import CONFIDENCE, MOST_RUNS, Ratio


@dataclass(frozen=True)
class Limits:
    """What a comparison may show at worst; None where anything will do.

    Attributes:
        latency_percent: by `p50`, `p90`, `p95` and `p99`, by how many percent it may be longer than before.
        rate_percent: by how many percent fewer requests a second may be answered.
        speedup: of the mean, at least; above 1.

    Raises:
        ContractError: one of them is out of range.
    """

    latency_percent: Mapping[str, float] = field(default_factory=dict)
    rate_percent: float | None = None
    speedup: float | None = None

    def __post_init__(self) -> None:
        if self.speedup is not None and self.speedup <= 1:
            raise ContractError(
                f"the least speed-up must be above 1, but is {self.speedup:g}; --max-p50-regression limits losses"
            )

    def __len__(self) -> int:
        return len(self.latency_percent) + (self.rate_percent is not None) + (self.speedup is not None)


@dataclass(frozen=True)
class Breach:
    """A limit that is not kept, or that may not be.

    Attributes:
        sentence: which, and by how much.
        refuses: whether it is shown to be broken, or not shown to be kept where that is asked for. False where a loss
            is allowed, and the runs show neither that it is larger nor that it is not.
    """

    sentence: str
    refuses: bool


def judge(comparisons: Sequence[Comparison], limits: Limits) -> list[list[Breach]]:
    """Return, for each comparison, which limits are not kept, or may not be.

    A loss that is allowed is too large where its whole interval is, and a gain that is required is there where its
    whole interval is. Where several limits or sides are judged, each interval is wider, so that all of them together
    hold the truth with 95% confidence (Dunn, "Multiple comparisons among means", JASA 1961).
    """
    if not len(limits):
        return [[] for _ in comparisons]
    confidence = 1 - (1 - CONFIDENCE) / (len(limits) * len(comparisons))
    return [_of_one(comparison, limits, confidence) for comparison in comparisons]


def _of_one(comparison: Comparison, limits: Limits, confidence: float) -> list[Breach]:
    if comparison.unknown:
        return [Breach(f"{comparison.b}: no limit can be judged: {comparison.unknown}", refuses=True)]
    found: list[Breach | None] = []
    for at, limit in limits.latency_percent.items():
        change = f"{at} went from {comparison.a_ms[at]:.1f} to {comparison.b_ms[at]:.1f} ms"
        found.append(_loss(comparison, change, comparison.latency[at], 1 / (1 + limit / 100), confidence, longer=True))
    if limits.rate_percent is not None:
        change = f"the rate went from {comparison.a_rate_per_s:.1f} to {comparison.b_rate_per_s:.1f} requests/s"
        found.append(_loss(comparison, change, comparison.rate, 1 - limits.rate_percent / 100, confidence))
    if limits.speedup is not None:
        found.append(_gain(comparison, limits.speedup, confidence))
    return [breach for breach in found if breach]


def _loss(
    comparison: Comparison, change: str, ratio: Ratio, worst: float, confidence: float, *, longer: bool = False
) -> Breach | None:
    """Return the breach of a limit on a loss, which is shown, or cannot be ruled out; of a latency that is longer."""
    low, high = ratio.interval(confidence)
    if low >= worst:
        return None
    values = (ratio.value, *((high, low) if longer else (low, high)), worst)
    percent, least, most, limit = (100 * ((1 / value if longer else value) - 1) for value in values)
    seen = f"{comparison.b}: {change}, {percent:+.1f}% ({least:+.1f}% to {most:+.1f}%{_together(confidence)})"
    if high < worst:
        return Breach(f"{seen}, and {limit:+.4g}% is allowed", refuses=True)
    unsure = f"{seen}, which may or may not be within the {limit:+.4g}% that is allowed"
    return Breach(f"{unsure}; {_more_runs(comparison, ratio, worst, confidence)}", refuses=False)


def _gain(comparison: Comparison, least: float, confidence: float) -> Breach | None:
    """Return the breach of a limit on a speed-up, which is not there, or not shown."""
    ratio = comparison.latency["mean"]
    if ratio.interval(confidence)[0] >= least:
        return None
    seen = f"{comparison.b}: the speed-up of the mean is {ratio.at(confidence)}{_together(confidence)}"
    more = f"; {_more_runs(comparison, ratio, least, confidence)}" if ratio.value > least else ""
    return Breach(f"{seen}, and {least:g}x is required{more}", refuses=True)


def _together(confidence: float) -> str:
    return f", at {confidence:.1%} for all limits together" if confidence > CONFIDENCE else ""


def _more_runs(comparison: Comparison, ratio: Ratio, other: float, confidence: float) -> str:
    runs = ratio.runs_to_tell(other, comparison.runs, confidence)
    if runs is None:
        return f"{MOST_RUNS} runs of each side would not tell, for how much they vary"
    return f"about {runs - comparison.runs} more of each side would tell"
