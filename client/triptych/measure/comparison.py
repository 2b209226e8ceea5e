"""Two runs side by side: what became faster, what Amdahl's law expected of it, and what may be chance.

Pure functions. Chance is judged by the intervals of each run, as repeated samples of it. They do not see what drifts
from one run to the next; several runs of one side, put together by `pool`, do.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from triptych.contract import DETECTOR
from triptych.errors import ContractError
from triptych.measure.attribution import PERCENTS, Breakdown
from triptych.measure.histogram import RELATIVE_ACCURACY, Histogram
from triptych.measure.ratio import Ratio, ratio_of, times
from triptych.measure.run_file import Run

QUEUE_SHARE = 0.05
"""From this share of the changed owner's time on, its queue is mentioned."""

AMDAHL_ERROR_PERCENT = 5.0
"""From this error of Amdahl's prediction on, the other owner that changed most is named."""


@dataclass(frozen=True)
class OwnerChange:
    """One owner of the mean, before and after.

    Attributes:
        owner: its name, as in `Breakdown.owners`.
        a_ms, b_ms: its part of the client's mean, in milliseconds.
        a_share, b_share: the same as a share, 0..1.
        speedup: None where it took no time in a run.
    """

    owner: str
    a_ms: float
    b_ms: float
    a_share: float
    b_share: float
    speedup: Ratio | None


@dataclass(frozen=True)
class Comparison:
    """Run B against run A.

    Attributes:
        a, b: names of the runs.
        owners: every owner of the mean.
        latency: end to end, of `mean`, `p50`, `p95` and `p99`.
        a_ms, b_ms: the same latencies of each run, in milliseconds.
        rate: B's requests a second over A's.
        a_rate_per_s, b_rate_per_s: the rate of each run.
        amdahl: the speed-up of the mean that Amdahl's law predicts; `compare_runs` has the formula.
        changed: the owner whose speed-up the prediction takes.
        bottleneck_a, bottleneck_b: who owns most of the mean.
        sentence: all of it in one sentence.
        prediction: the prediction and the measurement, in one sentence.
        regressions: a sentence for each limit that was broken.
    """

    a: str
    b: str
    owners: list[OwnerChange]
    latency: dict[str, Ratio]
    a_ms: dict[str, float]
    b_ms: dict[str, float]
    rate: Ratio
    a_rate_per_s: float
    b_rate_per_s: float
    amdahl: float
    changed: str
    bottleneck_a: str
    bottleneck_b: str
    sentence: str
    prediction: str
    regressions: list[str] = field(default_factory=list)

    @property
    def amdahl_error_percent(self) -> float:
        """How far the prediction lies above the measured speed-up of the mean."""
        return 100 * (self.amdahl / self.latency["mean"].value - 1)

    def owner(self, name: str) -> OwnerChange:
        """Return one of the owners."""
        return next(change for change in self.owners if change.owner == name)


def compare_runs(a: Run, b: Run, names: tuple[str, str] = ("A", "B"), changed: str = DETECTOR.name) -> Comparison:
    """Compare run B with run A.

    Amdahl's law (Amdahl, AFIPS 1967): if a share p of the time becomes s times as fast and the rest stays as it was,
    the whole becomes 1 / ((1 - p) + p / s) times as fast. Here p is the changed owner's share of A's mean and s its
    measured speed-up, so that the law reads: A's mean over (A's mean - the owner's part in A + its part in B). An
    owner's part holds its queue: where requests wait for a free instance, a faster model shortens that too.

    Args:
        a: the run before.
        b: the run after.
        names: of the runs, for the sentences.
        changed: the owner that was exchanged.

    Raises:
        ContractError: their loops differ, one has no request that succeeded, or none of their owners is `changed`.
    """
    check_comparable(a, b, names)
    before, after = a.attribution.breakdowns["mean"], b.attribution.breakdowns["mean"]
    owners = _owners(a, b)
    by_name = {change.owner: change for change in owners}
    if changed not in by_name:
        raise ContractError(f"no owner of time is called {changed}; the owners are: {', '.join(by_name)}")
    a_ms, b_ms = _latencies_ms(a.client.latencies), _latencies_ms(b.client.latencies)
    latency = {
        at: ratio_of(
            a_ms[at],
            b_ms[at],
            [getattr(interval, f"{at}_ms") for interval in a.samples],
            [getattr(interval, f"{at}_ms") for interval in b.samples],
            # The mean of a histogram is exact, its percentiles are not.
            1.0 if at == "mean" else (1 + RELATIVE_ACCURACY) / (1 - RELATIVE_ACCURACY),
        )
        for at in a_ms
    }
    rate = ratio_of(
        b.client.rate_per_s,
        a.client.rate_per_s,
        [interval.rate_per_s for interval in b.samples],
        [interval.rate_per_s for interval in a.samples],
        (1 + 1 / a.client.latencies.count) * (1 + 1 / b.client.latencies.count),  # whole requests are counted
    )
    comparison = Comparison(
        a=names[0],
        b=names[1],
        owners=owners,
        latency=latency,
        a_ms=a_ms,
        b_ms=b_ms,
        rate=rate,
        a_rate_per_s=a.client.rate_per_s,
        b_rate_per_s=b.client.rate_per_s,
        amdahl=before.total_ms / (before.total_ms - by_name[changed].a_ms + by_name[changed].b_ms),
        changed=changed,
        bottleneck_a=max(owners, key=lambda change: change.a_ms).owner,
        bottleneck_b=max(owners, key=lambda change: change.b_ms).owner,
        sentence="",
        prediction="",
    )
    return replace(comparison, sentence=_sentence(comparison), prediction=_prediction(comparison, before, after))


def to_json(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as plain objects; where there is no confidence interval, its ends are null."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list):
            return [plain(item) for item in value]
        if isinstance(value, Ratio):
            low, high = (value.low, value.high) if value.known else (None, None)
            return {"value": value.value, "low": low, "high": high, "significant": value.significant}
        return value

    data = {name: plain(value) for name, value in vars(comparison).items() if name != "owners"}
    data["owners"] = [plain(vars(change)) for change in comparison.owners]
    return {**data, "amdahl_error_percent": comparison.amdahl_error_percent}


def check_comparable(a: Run, b: Run, names: tuple[str, str]) -> None:
    """Refuse runs that cannot be held against each other.

    Raises:
        ContractError: their loops differ, or one has no request that succeeded.
    """
    if a.workload.loop != b.workload.loop:
        raise ContractError(
            f"runs of the same loop were expected, but {names[0]} is {a.workload.loop} and {names[1]} is "
            f"{b.workload.loop}: their latencies mean different things; measure both in one way"
        )
    for run, name in ((a, names[0]), (b, names[1])):
        if not run.client.rate_per_s:
            raise ContractError(f"no request of {name} succeeded, so there is nothing to compare; measure it again")


def _owners(a: Run, b: Run) -> list[OwnerChange]:
    before, after = a.attribution.breakdowns["mean"], b.attribution.breakdowns["mean"]
    a_ms, b_ms = before.owners(), after.owners()
    changes = []
    for name in {**a_ms, **b_ms}:
        ours, theirs = a_ms.get(name, 0.0), b_ms.get(name, 0.0)
        speedup = ratio_of(ours, theirs, _owner_ms(a, name), _owner_ms(b, name)) if min(ours, theirs) > 0 else None
        changes.append(OwnerChange(name, ours, theirs, ours / before.total_ms, theirs / after.total_ms, speedup))
    return changes


def _owner_ms(run: Run, name: str) -> list[float]:
    return [interval.owners_ms[name] for interval in run.samples if name in interval.owners_ms]


def _latencies_ms(latencies: Histogram) -> dict[str, float]:
    return {"mean": latencies.mean_ms, **{f"p{percent}": latencies.percentile_ms(percent) for percent in PERCENTS}}


def _sentence(comparison: Comparison) -> str:
    """Say who became faster, by how much the whole did, and who owns most of it now; or that it may be chance."""
    mean = comparison.latency["mean"]
    who = _who_changed(comparison)
    part = f"{who.owner} {_faster(who.speedup)}, " if who and who.speedup else ""
    if not mean.known:
        return f"{part}pipeline {_faster(mean)}, but there are too few intervals to tell that from chance"
    if not mean.significant:
        return f"{part and part + 'but '}no difference end to end that these runs can show: pipeline {mean}"
    same_way = who and who.speedup and (who.speedup.value >= 1) == (mean.value >= 1)
    whole = times(max(mean.value, 1 / mean.value)) if same_way else _faster(mean)
    now = comparison.owner(comparison.bottleneck_b)
    moved = comparison.bottleneck_a != comparison.bottleneck_b
    owns = f"{now.owner} owns {now.b_share:.0%} now" if moved else f"{now.owner} still owns {now.b_share:.0%}"
    return f"{part}pipeline {whole}: {owns}"


def _who_changed(comparison: Comparison) -> OwnerChange | None:
    """Return the owner that was exchanged; where only others changed, the one that changed most."""
    exchanged = comparison.owner(comparison.changed)
    if exchanged.speedup and (exchanged.speedup.significant or not exchanged.speedup.known):
        return exchanged
    others = [change for change in comparison.owners if change.speedup and change.speedup.significant]
    return max(others, key=lambda change: abs(change.b_ms - change.a_ms), default=None)


def _prediction(comparison: Comparison, before: Breakdown, after: Breakdown) -> str:
    changed, measured = comparison.owner(comparison.changed), comparison.latency["mean"].value
    error = comparison.amdahl_error_percent
    queues = [breakdown.stages.get(changed.owner, {}).get("queue", 0.0) for breakdown in (before, after)]
    waits = queues[0] >= QUEUE_SHARE * changed.a_ms or queues[1] >= QUEUE_SHARE * changed.b_ms
    waiting = f" (of which {queues[0]:.1f} and {queues[1]:.1f} ms in its queue)" if waits else ""
    sentence = (
        f"{changed.owner}, {changed.a_share:.0%} of {comparison.a}'s mean, went from {changed.a_ms:.1f} to "
        f"{changed.b_ms:.1f} ms{waiting}: Amdahl's law predicts {times(comparison.amdahl)} end to end, "
        f"{times(measured)} was measured ({error:+.1f}%)"
    )
    if abs(error) < AMDAHL_ERROR_PERCENT:
        return sentence
    others = (change for change in comparison.owners if change is not changed)
    most = max(others, key=lambda change: abs(change.b_ms - change.a_ms))
    return f"{sentence}; {most.owner} changed too, from {most.a_ms:.1f} to {most.b_ms:.1f} ms"


def _faster(ratio: Ratio) -> str:
    return f"{times(ratio.value)} faster" if ratio.value >= 1 else f"{times(1 / ratio.value)} slower"
