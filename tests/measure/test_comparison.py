"""Comparisons of runs whose truth is known, since they are made up."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from support.measured import OTHER_MS, STAGE_MS, made_up, with_client, with_workload, without_traces
from triptych.errors import ContractError
from triptych.measure.comparison import Comparison, compare_runs
from triptych.measure.histogram import Histogram
from triptych.measure.intervals import Interval
from triptych.measure.ratio import Ratio


def speedup_of(comparison: Comparison, owner: str = "detector") -> Ratio:
    speedup = comparison.owner(owner).speedup
    assert speedup is not None
    return speedup


def all_ratios(comparison: Comparison) -> dict[str, Ratio]:
    speedups = {change.owner: speedup_of(comparison, change.owner) for change in comparison.owners}
    return {**comparison.latency, "rate": comparison.rate, **speedups}


def test_a_detector_that_is_four_times_as_fast() -> None:
    comparison = compare_runs(made_up(seed=1), made_up(seed=2, requests=500, detector=20.0))
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
    comparison = compare_runs(made_up(seed=1), made_up(seed=2, detector=20.0, postprocess=24.0))
    before, after = comparison.owner("postprocess").a_ms, comparison.owner("postprocess").b_ms
    share, speedup = comparison.owner("detector").a_share, speedup_of(comparison).value
    assert comparison.amdahl == pytest.approx(1 / ((1 - share) + share / speedup))
    # Postprocess takes 12 ms more, which the law does not know: 100 / 40 against 100 / 52.
    assert comparison.amdahl_error_percent == pytest.approx(30, abs=3)
    assert comparison.prediction.endswith(f"; postprocess changed too, from {before:.1f} to {after:.1f} ms")


def test_the_bottleneck_moves() -> None:
    comparison = compare_runs(made_up(seed=1), made_up(seed=2, detector=4.0))
    assert (comparison.bottleneck_a, comparison.bottleneck_b) == ("detector", "postprocess")
    assert comparison.sentence == "detector 20x faster, pipeline 4.2x: postprocess owns 50% now"


def test_another_owner_that_was_exchanged() -> None:
    comparison = compare_runs(made_up(seed=1), made_up(seed=2, postprocess=3.0), changed="postprocess")
    assert comparison.amdahl == pytest.approx(100 / 91, rel=0.02)
    assert comparison.prediction.startswith(
        "postprocess, 12% of A's mean, went from 12.0 to 3.0 ms: Amdahl's law predicts 1.1"
    )


def test_an_owner_that_grew_unasked_is_named() -> None:
    comparison = compare_runs(made_up(seed=1, noise=0.01), made_up(seed=2, noise=0.01, postprocess=36.0))
    assert comparison.sentence == "postprocess 3.0x slower, pipeline 1.24x: detector still owns 65%"


def test_a_faster_detector_in_a_slower_pipeline() -> None:
    comparison = compare_runs(made_up(seed=1, noise=0.02), made_up(seed=2, noise=0.02, detector=60.0, postprocess=60.0))
    assert comparison.sentence.startswith("detector 1.33x faster, pipeline 1.28x slower: ")


def test_a_queue_belongs_to_its_owner_and_is_mentioned() -> None:
    comparison = compare_runs(made_up(seed=1, queue_ms=40), made_up(seed=2, detector=20.0, queue_ms=10))
    assert speedup_of(comparison).value == pytest.approx(4, rel=0.02)
    assert "(of which 40.0 and 10.0 ms in its queue)" in comparison.prediction
    assert "queue" not in compare_runs(made_up(seed=1), made_up(seed=2)).prediction


def test_the_interval_is_that_of_welch_s_test_on_logarithms() -> None:
    a, b = made_up(seed=1, noise=0.3), made_up(seed=2, noise=0.1, intervals=6)
    ratio = compare_runs(a, b).latency["mean"]
    logs = [np.log([interval.mean_ms for interval in run.intervals]) for run in (a, b)]
    theirs = stats.ttest_ind(*logs, equal_var=False).confidence_interval(0.95)
    # Theirs varies about the mean of the logarithms, ours about the logarithm of the run's mean.
    assert math.log(ratio.high / ratio.low) == pytest.approx(theirs.high - theirs.low, rel=0.05)
    assert math.sqrt(ratio.high * ratio.low) == pytest.approx(ratio.value)


SEEDS = 200
WRONG = 22
"""Of 200 that are each wrong with a chance of 5%, 10 are on average, and 22 four standard deviations later."""


def test_what_is_the_same_is_found_to_be_so_in_nineteen_of_twenty() -> None:
    wrong: Counter[str] = Counter()
    for seed in range(SEEDS):
        comparison = compare_runs(made_up(2 * seed, noise=0.3), made_up(2 * seed + 1, noise=0.3))
        wrong.update(name for name, ratio in all_ratios(comparison).items() if ratio.significant)
    assert max(wrong.values()) <= WRONG, wrong
    # An interval that is too wide would be no better: of percentiles and rates, which are known less well, it may be.
    assert min(wrong[name] for name in ("mean", *STAGE_MS, *OTHER_MS)) >= 2, wrong


def test_the_interval_holds_the_truth_in_nineteen_of_twenty() -> None:
    """Of a run with four times as many requests, whose intervals know their percentiles better."""
    missed: Counter[str] = Counter()
    for seed in range(SEEDS):
        before = made_up(2 * seed, noise=0.3, requests=200)
        comparison = compare_runs(before, made_up(2 * seed + 1, noise=0.3, requests=800, slower=0.25))
        missed.update(name for name, ratio in all_ratios(comparison).items() if not ratio.low <= 4 <= ratio.high)
        assert comparison.latency["mean"].high / comparison.latency["mean"].low < 1.5, "as narrow as 10 intervals allow"
    assert max(missed.values()) <= WRONG, missed


def test_ten_percent_with_little_noise_are_more_than_chance() -> None:
    for seed in range(20):
        comparison = compare_runs(made_up(2 * seed, noise=0.05), made_up(2 * seed + 1, noise=0.05, slower=1.1))
        assert comparison.latency["mean"].significant
        assert comparison.latency["mean"].value == pytest.approx(1 / 1.1, rel=0.03)


def test_no_difference_is_said_to_be_none() -> None:
    comparison = compare_runs(made_up(seed=1), made_up(seed=3))
    assert comparison.sentence.startswith("no difference end to end that these runs can show: pipeline ")
    assert not comparison.latency["mean"].significant


def test_few_intervals_give_a_ratio_without_an_interval() -> None:
    comparison = compare_runs(made_up(seed=1, intervals=2), made_up(seed=2, detector=20.0))
    mean = comparison.latency["mean"]
    assert (mean.low, mean.high, mean.known, mean.significant) == (0, math.inf, False, False)
    assert (
        comparison.sentence
        == "detector 4.0x faster, pipeline 2.5x faster, but there are too few intervals to tell that from chance"
    )


def test_intervals_without_answers_are_left_out() -> None:
    run = made_up(seed=1)
    silent = Interval(0.0, 1.0, 0, 5, 0.0, 0.0, 0.0, 0.0)
    with_silence = replace(run, intervals=[silent, *run.intervals])
    assert compare_runs(with_silence, made_up(seed=2)).latency == compare_runs(run, made_up(seed=2)).latency


def test_without_traces_owners_have_no_interval() -> None:
    comparison = compare_runs(without_traces(made_up(seed=1)), made_up(seed=2, detector=20.0))
    assert not speedup_of(comparison).known
    assert speedup_of(comparison).value == pytest.approx(4, rel=0.02)
    assert comparison.latency["mean"].significant
    assert comparison.sentence == "detector 4.0x faster, pipeline 2.5x: detector still owns 50%"


def test_runs_that_never_vary_are_compared_all_the_same() -> None:
    comparison = compare_runs(made_up(noise=0), made_up(noise=0, detector=20.0))
    assert [comparison.latency["mean"].low, comparison.latency["mean"].high] == pytest.approx([2.5, 2.5])
    assert not compare_runs(made_up(noise=0), made_up(noise=0)).latency["p50"].significant


def test_what_cannot_be_compared_is_one_sentence() -> None:
    run = made_up()
    with pytest.raises(ContractError, match="A is closed and B is poisson"):
        compare_runs(run, with_workload(run, loop="poisson"))
    with pytest.raises(ContractError, match="no request of B succeeded"):
        compare_runs(run, with_client(run, latencies=Histogram()))
    with pytest.raises(ContractError, match="no owner of time is called tracker; the owners are: preprocess, detector"):
        compare_runs(run, run, changed="tracker")
