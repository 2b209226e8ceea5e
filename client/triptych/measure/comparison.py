"""Two sides of runs: what became faster, what Amdahl's law expected of it, and what may be chance.

Pure functions. Chance is judged by the runs of each side, taken in turn.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from triptych.contract import DETECTOR
from triptych.errors import ContractError
from triptych.measure.attribution import Breakdown
from triptych.measure.bounds import PERCENTS
from triptych.measure.histogram import RELATIVE_ACCURACY
from triptych.measure.pool import Side, chance_unknown, check_comparable
from triptych.measure.power.figures import Kind, Power
from triptych.measure.ratio import Ratio, ratio_of, times
from triptych.measure.run_file import Run

LATENCIES = ("mean", *(f"p{percent}" for percent in PERCENTS))
"""The latencies that are compared."""

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
    """Side B against side A.

    Attributes:
        a, b: names of the sides.
        runs: how many each side has, or the one that has fewer.
        unknown: why nobody can tell a difference from chance; empty where it can be told.
        owners: every owner of the mean.
        latency: end to end, of `mean`, `p50`, `p95` and `p99`.
        a_ms, b_ms: the same latencies of each side, in milliseconds.
        rate: B's requests a second over A's.
        a_rate_per_s, b_rate_per_s: the rate of each side.
        a_batch, b_batch: images in a request of each side.
        images_per_j: B's images per joule over A's, by `GPU` and `CPU`; only where both sides know the energy, and have
            it from the same source.
        a_images_per_j, b_images_per_j: the same of each side.
        amdahl: the speed-up of the mean that Amdahl's law predicts; `compare_runs` has the formula.
        changed: the owner whose speed-up the prediction takes.
        bottleneck_a, bottleneck_b: who owns most of the mean.
        sentence: all of it in one sentence.
        prediction: the prediction and the measurement, in one sentence.
        refusals: a sentence for each limit that B does not keep.
    """

    a: str
    b: str
    runs: int
    unknown: str
    owners: list[OwnerChange]
    latency: dict[str, Ratio]
    a_ms: dict[str, float]
    b_ms: dict[str, float]
    rate: Ratio
    a_rate_per_s: float
    b_rate_per_s: float
    a_batch: int
    b_batch: int
    images_per_j: dict[Kind, Ratio]
    a_images_per_j: dict[Kind, float]
    b_images_per_j: dict[Kind, float]
    amdahl: float
    changed: str
    bottleneck_a: str
    bottleneck_b: str
    sentence: str
    prediction: str
    refusals: list[str] = field(default_factory=list)

    @property
    def amdahl_error_percent(self) -> float:
        """How far the prediction lies above the measured speed-up of the mean."""
        return 100 * (self.amdahl / self.latency["mean"].value - 1)

    @property
    def rates(self) -> dict[str, tuple[float, float, Ratio]]:
        """By unit, the figure of each side, and B's over A's.

        The units are `requests/s`, `images/s` where a request has several, and images per joule where that is known.
        """
        rates = {"requests/s": (self.a_rate_per_s, self.b_rate_per_s, self.rate)}
        if max(self.a_batch, self.b_batch) > 1:
            images = replace(self.rate, value=self.rate.value * self.b_batch / self.a_batch)
            rates["images/s"] = (self.a_rate_per_s * self.a_batch, self.b_rate_per_s * self.b_batch, images)
        for kind, ratio in self.images_per_j.items():
            rates[f"images/J, {kind}"] = (self.a_images_per_j[kind], self.b_images_per_j[kind], ratio)
        return rates

    def owner(self, name: str) -> OwnerChange:
        """Return one of the owners."""
        return next(change for change in self.owners if change.owner == name)


def compare_sides(a: Side, b: Side, changed: str = DETECTOR.name) -> Comparison:
    """Compare side B with side A.

    Amdahl's law (Amdahl, AFIPS 1967): if a share p of the time becomes s times as fast and the rest stays as it was,
    the whole becomes 1 / ((1 - p) + p / s) times as fast. Here p is the changed owner's share of A's mean and s its
    measured speed-up, so that the law reads: A's mean over (A's mean - the owner's part in A + its part in B). An
    owner's part holds its queue: where requests wait for a free instance, a faster model shortens that too.

    Args:
        a: the runs before.
        b: the runs after.
        changed: the owner that was exchanged.

    Raises:
        ContractError: their loops differ, one has no request that succeeded, or none of their owners is `changed`.
    """
    check_comparable(a.run, b.run, (a.name, b.name))
    before, after = a.run.attribution.breakdowns["mean"], b.run.attribution.breakdowns["mean"]
    unknown = chance_unknown(a, b)

    def ratio(figure: Callable[[Run], float], over: Side, under: Side, known_to: float = 1.0) -> Ratio:
        overs, unders = ([] if unknown else [figure(run) for run in side.runs] for side in (over, under))
        return ratio_of(figure(over.run), figure(under.run), overs, unders, known_to)

    owners = []
    for name in {**before.owners(), **after.owners()}:
        ours, theirs = before.owners().get(name, 0.0), after.owners().get(name, 0.0)
        speedup = ratio(partial(_owner_ms, name), a, b) if min(ours, theirs) > 0 else None
        owners.append(OwnerChange(name, ours, theirs, ours / before.total_ms, theirs / after.total_ms, speedup))
    by_name = {change.owner: change for change in owners}
    if changed not in by_name:
        raise ContractError(f"no owner of time is called {changed}; the owners are: {', '.join(by_name)}")
    # The mean of a histogram is exact, its percentiles are not; of a rate whole requests are counted.
    accuracy = (1 + RELATIVE_ACCURACY) / (1 - RELATIVE_ACCURACY)
    latency = {at: ratio(partial(_latency_ms, at), a, b, 1.0 if at == "mean" else accuracy) for at in LATENCIES}
    counted = math.prod(1 + 1 / side.run.client.latencies.count for side in (a, b))
    kinds = _comparable_kinds(a.run.power, b.run.power)
    comparison = Comparison(
        a=a.name,
        b=b.name,
        runs=min(len(a.runs), len(b.runs)),
        unknown=unknown,
        owners=owners,
        latency=latency,
        a_ms={at: _latency_ms(at, a.run) for at in LATENCIES},
        b_ms={at: _latency_ms(at, b.run) for at in LATENCIES},
        rate=ratio(lambda run: run.client.rate_per_s, b, a, counted),
        a_rate_per_s=a.run.client.rate_per_s,
        b_rate_per_s=b.run.client.rate_per_s,
        a_batch=a.run.workload.batch,
        b_batch=b.run.workload.batch,
        images_per_j={
            kind: ratio(partial(_images_per_j, kind), b, a, accuracy_j) for kind, accuracy_j in kinds.items()
        },
        a_images_per_j={kind: _images_per_j(kind, a.run) for kind in kinds},
        b_images_per_j={kind: _images_per_j(kind, b.run) for kind in kinds},
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


def _owner_ms(name: str, run: Run) -> float:
    return run.attribution.breakdowns["mean"].owners().get(name, 0.0)


def _images_per_j(kind: Kind, run: Run) -> float:
    return run.images_per_j[kind]


def _comparable_kinds(a: Power | None, b: Power | None) -> dict[Kind, float]:
    """Return the kinds of devices whose energy both know from one source, each with the factor to which that is so."""
    if a is None or b is None:
        return {}
    both = [kind for kind in a.kinds if kind in b.kinds]
    return {kind: a.accuracy(kind) * b.accuracy(kind) for kind in both if a.source_of(kind) == b.source_of(kind)}


def _latency_ms(at: str, run: Run) -> float:
    latencies = run.client.latencies
    return latencies.mean_ms if at == "mean" else latencies.percentile_ms(float(at.removeprefix("p")))


def _sentence(comparison: Comparison) -> str:
    """Say who became faster, by how much the whole did, and who owns most of it now; or that it may be chance."""
    mean = comparison.latency["mean"]
    who = _who_changed(comparison)
    part = f"{who.owner} {_faster(who.speedup)}, " if who and who.speedup else ""
    if not mean.known:
        return f"{part}pipeline {_faster(mean)}, which these runs cannot tell from chance"
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
