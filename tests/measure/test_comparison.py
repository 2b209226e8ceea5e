"""Comparisons of runs whose truth is known, since they are made up."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from support.measured import (
    INTERVALS,
    OTHER_MS,
    STAGE_MS,
    alone,
    in_turn,
    made_up,
    with_client,
    with_workload,
    without_traces,
)
from support.power import gpu, power
from triptych.errors import ContractError
from triptych.measure.comparison import Comparison, compare_sides, to_json
from triptych.measure.histogram import Histogram
from triptych.measure.pool import Side
from triptych.measure.ratio import FEWEST_RUNS, Ratio


def speedup_of(comparison: Comparison, owner: str = "detector") -> Ratio:
    speedup = comparison.owner(owner).speedup
    assert speedup is not None
    return speedup


def all_ratios(comparison: Comparison) -> dict[str, Ratio]:
    speedups = {change.owner: speedup_of(comparison, change.owner) for change in comparison.owners}
    return {**comparison.latency, "rate": comparison.rate, **speedups}


def test_a_detector_that_is_four_times_as_fast() -> None:
    comparison = compare_sides(*in_turn(requests=500, detector=20.0))
    detector = comparison.owner("detector")
    assert speedup_of(comparison).value == pytest.approx(4, rel=0.02)
    assert speedup_of(comparison).low < 4 < speedup_of(comparison).high
    assert [detector.a_share, detector.b_share] == pytest.approx([0.8, 0.5], abs=0.01)
    # 80 of 100 ms become 20: 1 / (0.2 + 0.8 / 4) = 2.5.
    assert comparison.amdahl == pytest.approx(2.5, rel=0.02)
    assert comparison.latency["mean"].value == pytest.approx(2.5, rel=0.02)
    assert abs(comparison.amdahl_error_percent) < 2
    assert comparison.rate.value == pytest.approx(2.5, rel=0.02)
    assert {comparison.bottleneck_a, comparison.bottleneck_b, comparison.changed} == {"detector"}
    assert comparison.sentence == "detector 4.0x faster, pipeline 2.5x: detector still owns 50%"


def test_amdahl_s_law_is_its_formula() -> None:
    comparison = compare_sides(*in_turn(detector=20.0, postprocess=24.0))
    before, after = comparison.owner("postprocess").a_ms, comparison.owner("postprocess").b_ms
    share, speedup = comparison.owner("detector").a_share, speedup_of(comparison).value
    assert comparison.amdahl == pytest.approx(1 / ((1 - share) + share / speedup))
    # Postprocess takes 12 ms more, which the law does not know: 100 / 40 against 100 / 52.
    assert comparison.amdahl_error_percent == pytest.approx(30, abs=3)
    assert comparison.prediction.endswith(f"; postprocess changed too, from {before:.1f} to {after:.1f} ms")


def test_the_bottleneck_moves() -> None:
    comparison = compare_sides(*in_turn(detector=4.0))
    assert (comparison.bottleneck_a, comparison.bottleneck_b) == ("detector", "postprocess")
    assert comparison.sentence == "detector 20x faster, pipeline 4.2x: postprocess owns 50% now"


def test_another_owner_that_was_exchanged() -> None:
    comparison = compare_sides(*in_turn(postprocess=3.0), changed="postprocess")
    assert comparison.amdahl == pytest.approx(100 / 91, rel=0.02)
    assert comparison.prediction.startswith(
        "postprocess, 12% of A's mean, went from 11.9 to 3.0 ms: Amdahl's law predicts 1.1"
    )


def test_an_owner_that_grew_unasked_is_named() -> None:
    comparison = compare_sides(*in_turn(noise=0.01, postprocess=36.0))
    assert comparison.sentence == "postprocess 3.0x slower, pipeline 1.24x: detector still owns 65%"


def test_a_faster_detector_in_a_slower_pipeline() -> None:
    comparison = compare_sides(*in_turn(noise=0.02, detector=60.0, postprocess=60.0))
    assert comparison.sentence.startswith("detector 1.33x faster, pipeline 1.28x slower: ")


def test_a_queue_belongs_to_its_owner_and_is_mentioned() -> None:
    comparison = compare_sides(*in_turn(a={"queue_ms": 40}, detector=20.0, queue_ms=10))
    assert speedup_of(comparison).value == pytest.approx(4, rel=0.02)
    assert "(of which 40.0 and 10.0 ms in its queue)" in comparison.prediction
    assert "queue" not in compare_sides(*in_turn()).prediction


def test_the_interval_is_that_of_welch_s_test_on_logarithms() -> None:
    a, b = in_turn(runs=8, noise=0.3)
    ratio = compare_sides(a, b).latency["mean"]
    logs = [np.log([run.client.latencies.mean_ms for run in side.runs]) for side in (a, b)]
    theirs = stats.ttest_ind(*logs, equal_var=False).confidence_interval(0.95)
    # Theirs varies about the mean of the logarithms, ours about the logarithm of the whole side's mean.
    assert math.log(ratio.high / ratio.low) == pytest.approx(theirs.high - theirs.low, rel=0.05)
    assert math.sqrt(ratio.high * ratio.low) == pytest.approx(ratio.value)


SEEDS = 200
WRONG = 22
"""Of 200 that are each wrong with a chance of 5%, 10 are on average, and 22 four standard deviations later."""


def drifting(seed: int, remembered: float, sd: float = 0.1) -> tuple[Side, Side]:
    """Two sides that are the same, in turn, on a machine that drifts.

    Its speed is a first-order autoregression over the windows of all runs, one after the other; `remembered` is what a
    window keeps of the one before, 0..1, and `sd` the standard deviation of the logarithm.
    """
    rng, level = np.random.default_rng(seed), 0.0
    runs = []
    for number in range(2 * FEWEST_RUNS):
        levels = []
        for _ in range(INTERVALS):
            level = remembered * level + rng.normal(0, sd * math.sqrt(1 - remembered**2))
            levels.append(level)
        slower = np.exp(np.repeat(levels, 10))
        runs.append(made_up(2 * FEWEST_RUNS * seed + number, requests=len(slower), slower=slower, intervals=1))
    return Side("A", runs[::2]), Side("B", runs[1::2])


@pytest.mark.parametrize("remembered", [0.0, 0.9, 0.98])
def test_what_is_the_same_is_found_to_be_so_in_nineteen_of_twenty(remembered: float) -> None:
    """Also where neighbouring windows are alike, and neighbouring runs: parts of one run would be far too sure."""
    wrong: Counter[str] = Counter()
    for seed in range(SEEDS):
        comparison = compare_sides(*drifting(seed, remembered))
        wrong.update(name for name, ratio in all_ratios(comparison).items() if ratio.significant)
    assert max(wrong.values()) <= WRONG, wrong
    if not remembered:  # an interval that is too wide would be no better, where nothing is remembered
        assert min(wrong[name] for name in ("mean", *STAGE_MS, *OTHER_MS)) >= 2, wrong


def test_the_interval_holds_the_truth_in_nineteen_of_twenty() -> None:
    """Of runs with four times as many requests, which know their percentiles better."""
    missed: Counter[str] = Counter()
    for seed in range(SEEDS):
        comparison = compare_sides(
            *in_turn(seed, noise=0.3, a={"requests": 100, "intervals": 1}, requests=400, intervals=1, slower=0.25)
        )
        missed.update(name for name, ratio in all_ratios(comparison).items() if not ratio.low <= 4 <= ratio.high)
        assert comparison.latency["mean"].high / comparison.latency["mean"].low < 1.6, "as narrow as 4 runs allow"
    assert max(missed.values()) <= WRONG, missed


def test_ten_percent_with_little_noise_are_more_than_chance() -> None:
    for seed in range(20):
        comparison = compare_sides(*in_turn(seed, noise=0.05, slower=1.1))
        assert comparison.latency["mean"].significant
        assert comparison.latency["mean"].value == pytest.approx(1 / 1.1, rel=0.03)


def test_no_difference_is_said_to_be_none() -> None:
    comparison = compare_sides(*in_turn())
    assert comparison.sentence.startswith("no difference end to end that these runs can show: pipeline ")
    assert not comparison.latency["mean"].significant


def test_seven_runs_of_one_setting_never_differ() -> None:
    """One against one, they differ by far more than the parts of each of them do."""
    sides = [Side(str(seed), [made_up(seed, slower=1 + 0.05 * seed)]) for seed in range(7)]
    for a, b in combinations(sides, 2):
        comparison = compare_sides(a, b)
        assert not any(ratio.known or ratio.significant for ratio in all_ratios(comparison).values())
        assert comparison.unknown == (
            "it takes 4 runs of each side, in turn, to tell a difference from chance; "
            f"missing: 3 of {a.name}, 3 of {b.name}"
        )


def test_few_runs_give_a_ratio_without_an_interval() -> None:
    comparison = compare_sides(*in_turn(runs=3, detector=20.0))
    mean = comparison.latency["mean"]
    assert (mean.low, mean.high, mean.known, mean.significant) == (0, math.inf, False, False)
    assert comparison.sentence == "detector 4.0x faster, pipeline 2.5x faster, which these runs cannot tell from chance"


def test_runs_that_were_not_taken_in_turn_give_no_interval() -> None:
    runs = [made_up(seed) for seed in range(8)]

    def compare(*of_a: int) -> Comparison:
        a, b = ([run for number, run in enumerate(runs) if (number in of_a) == mine] for mine in (True, False))
        return compare_sides(Side("A", a), Side("B", b))

    for one_after_the_other in (compare(0, 1, 2, 3), compare(4, 5, 6, 7), compare(0, 1, 4, 5)):
        assert not one_after_the_other.latency["mean"].known
        assert "were not taken in turn" in one_after_the_other.unknown
    assert compare(0, 3, 4, 7).latency["mean"].known, "there and back"


def test_owners_have_an_interval_without_traces_too() -> None:
    a, b = in_turn(detector=20.0)
    comparison = compare_sides(Side("A", [without_traces(run) for run in a.runs]), b)
    assert speedup_of(comparison).known
    assert comparison.sentence == "detector 4.0x faster, pipeline 2.5x: detector still owns 50%"


def test_runs_that_never_vary_are_compared_all_the_same() -> None:
    comparison = compare_sides(*in_turn(noise=0, detector=20.0))
    assert [comparison.latency["mean"].low, comparison.latency["mean"].high] == pytest.approx([2.5, 2.5])
    assert not compare_sides(*in_turn(noise=0)).latency["p50"].significant


def test_images_per_joule_are_compared_with_the_same_caution() -> None:
    def side(name: str, seed: int, energies_j: Sequence[float]) -> Side:
        runs = [replace(made_up(seed + 2 * at), power=power(gpu(energy_j))) for at, energy_j in enumerate(energies_j)]
        return Side(name, runs)

    a, b = side("fp32", 0, [8000, 8100, 7900, 8000]), side("int8", 1, [4000, 4100, 3900, 4000])
    of_a, of_b, ratio = compare_sides(a, b).rates["images/J, GPU"]
    assert (of_a, of_b, ratio.value) == pytest.approx((0.025, 0.05, 2.0))
    assert 1.8 < ratio.low < 2 < ratio.high < 2.2
    assert ratio.known_to == pytest.approx((1 + 400 / 32_000) * (1 + 400 / 16_000)), "as far as the counters are"
    once = compare_sides(Side("fp32", a.runs[:1]), Side("int8", b.runs[:1]))
    assert str(once.rates["images/J, GPU"][2]) == "2.00x (chance unknown)"
    assert json.loads(json.dumps(to_json(once)))["images_per_j"]["GPU"]["low"] is None


def test_energy_of_one_side_or_from_unlike_counters_is_not_compared() -> None:
    by_driver, by_server, none = (
        Side(name, [replace(made_up(seed), power=seen)])
        for seed, (name, seen) in enumerate(
            [("a", power(gpu(8000.0))), ("b", power(gpu(4000.0, source="triton"))), ("c", None)]
        )
    )
    for one, other in ((by_driver, by_server), (by_driver, none), (none, by_driver)):
        assert list(compare_sides(one, other).rates) == ["requests/s"]


def test_what_cannot_be_compared_is_one_sentence() -> None:
    run = made_up()
    with pytest.raises(ContractError, match="A is closed and B is poisson"):
        compare_sides(*alone(run, with_workload(run, loop="poisson")))
    with pytest.raises(ContractError, match="no request of B succeeded"):
        compare_sides(*alone(run, with_client(run, latencies=Histogram())))
    with pytest.raises(ContractError, match="no owner of time is called tracker; the owners are: preprocess, detector"):
        compare_sides(*alone(run, run), changed="tracker")
