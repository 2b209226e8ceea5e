"""Limits of a comparison: what B may lose against A, and where it lost more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from triptych.errors import ContractError
from triptych.measure.comparison import Comparison
from triptych.measure.ratio import Ratio


@dataclass(frozen=True)
class Limits:
    """What a comparison may show at worst; None where anything will do.

    Attributes:
        latency_percent: by `p50`, `p95` and `p99`, by how many percent it may be longer than before.
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


@dataclass(frozen=True)
class Breach:
    """A limit that is broken.

    Attributes:
        sentence: which, and by how much.
        proven: False where chance may have broken it.
    """

    sentence: str
    proven: bool


def judge(comparison: Comparison, limits: Limits) -> list[Breach]:
    """Return what is broken.

    Raises:
        ContractError: there are too few intervals to judge a limit.
    """
    breaches: list[Breach] = []

    def regression(what: str, percent: float, limit: float, ratio: Ratio, change: str) -> None:
        _check_known(ratio, what)
        if percent > limit:
            sentence = f"{comparison.b}: {what} by {percent:.1f}% ({change}), and {limit:g}% are allowed"
            breaches.append(Breach(sentence, ratio.significant))

    for at, limit in limits.latency_percent.items():
        a_ms, b_ms = comparison.a_ms[at], comparison.b_ms[at]
        change = f"{a_ms:.1f} to {b_ms:.1f} ms"
        regression(f"{at} is longer", 100 * (b_ms / a_ms - 1), limit, comparison.latency[at], change)
    if limits.rate_percent is not None:
        a_rate, b_rate = comparison.a_rate_per_s, comparison.b_rate_per_s
        change = f"{a_rate:.1f} to {b_rate:.1f} requests/s"
        regression("the rate is lower", 100 * (1 - b_rate / a_rate), limits.rate_percent, comparison.rate, change)
    if limits.speedup is not None:
        mean = comparison.latency["mean"]
        _check_known(mean, "the mean is faster")
        if mean.value < limits.speedup or not mean.significant:
            sentence = f"{comparison.b}: the speed-up of the mean is {mean}, and {limits.speedup:g}x is required"
            breaches.append(Breach(sentence, proven=True))
    return breaches


def _check_known(ratio: Ratio, what: str) -> None:
    if not ratio.known:
        raise ContractError(
            f"whether {what} cannot be judged: each side needs three intervals with answers at least; measure longer, "
            "or in more --intervals"
        )
