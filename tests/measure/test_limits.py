"""Limits of a comparison, and what breaks them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from support.measured import alone, in_turn, made_up
from triptych.errors import ContractError
from triptych.measure.comparison import Comparison, compare_sides
from triptych.measure.limits import Breach, Limits, judge
from triptych.measure.ratio import Ratio
from triptych.measure.remarks import of_breaches


def judged(comparison: Comparison, limits: Limits) -> list[Breach]:
    (breaches,) = judge([comparison], limits)
    return breaches


def with_mean(value: float, low: float) -> Comparison:
    """Return a comparison whose speed-up of the mean has this interval, of four runs a side."""
    exact = compare_sides(*in_turn(noise=0))
    error = Ratio(1.0, 1.0, 6).interval()[1]  # e to the power of the quantile
    ratio = Ratio(value, math.log(value / low) / math.log(error), 6)
    assert ratio.low == pytest.approx(low)
    return replace(exact, latency={**exact.latency, "mean": ratio})


def test_a_loss_is_shown_where_its_whole_interval_is_beyond_the_limit() -> None:
    limits = Limits({"p50": 5.0, "p95": 30.0}, rate_percent=5.0)
    slower = compare_sides(*in_turn(noise=0.02, slower=1.15))
    breaches = judged(slower, limits)
    assert [breach.refuses for breach in breaches] == [True, True]
    assert breaches[0].sentence.startswith("B: p50 went from 100.0 to 115.0 ms, +15.0% (+1")
    assert breaches[0].sentence.endswith("at 98.3% for all limits together), and +5% is allowed")
    assert breaches[1].sentence.startswith("B: the rate went from 10.0 to 8.7 requests/s, -13.")
    assert breaches[1].sentence.endswith("and -5% is allowed")
    assert judged(compare_sides(*in_turn(noise=0.02)), limits) == []
    assert judged(compare_sides(*in_turn(noise=0.02, slower=0.5)), limits) == []
    assert judged(slower, Limits()) == []


def test_a_loss_that_may_or_may_not_be_within_the_limit_is_warned_of() -> None:
    (breach,) = judged(compare_sides(*in_turn(noise=0.3, slower=1.1)), Limits({"p99": 5.0}))
    assert not breach.refuses
    assert "which may or may not be within the +5% that is allowed; " in breach.sentence
    (remark,) = of_breaches([breach, Breach("shown", refuses=True)])
    assert (remark.id, remark.text) == ("limit-unproven", breach.sentence)


def test_a_speedup_must_be_shown_by_its_whole_interval() -> None:
    assert judged(with_mean(1.51, 1.39), Limits(speedup=1.38)) == []
    (breach,) = judged(with_mean(1.51, 1.39), Limits(speedup=1.5))
    assert breach.refuses
    assert breach.sentence.startswith(
        "B: the speed-up of the mean is 1.51x (1.39 to 1.64), and 1.5x is required; 100 runs of each side would not"
    )
    (nearer,) = judged(with_mean(1.51, 1.39), Limits(speedup=1.43))
    assert nearer.sentence.endswith("and 1.43x is required; about 4 more of each side would tell")
    (slower,) = judged(with_mean(1.51, 1.39), Limits(speedup=3.0))
    assert slower.sentence.endswith("and 3x is required")


def test_several_limits_and_several_sides_make_each_interval_wider() -> None:
    one = with_mean(1.51, 1.39)
    assert judge([one], Limits(speedup=1.385)) == [[]]
    assert judge([one], Limits({"p50": 10.0}, speedup=1.385)) != [[]]
    assert judge([one, one, one], Limits(speedup=1.385)) != [[], [], []]


def test_of_what_is_the_same_one_gate_in_twenty_refuses_however_many_limits_it_has() -> None:
    limits = Limits({"p50": 0.0, "p95": 0.0, "p99": 0.0}, rate_percent=0.0)
    refused = sum(
        any(breach.refuses for breach in judged(compare_sides(*in_turn(seed)), limits)) for seed in range(100)
    )
    assert refused <= 14, "5 on average, and 4 standard deviations"


def test_a_least_speedup_that_is_none_is_refused() -> None:
    with pytest.raises(ContractError, match=r"must be above 1, but is 0\.9"):
        Limits(speedup=0.9)


def test_limits_without_evidence_refuse() -> None:
    few = compare_sides(*in_turn(runs=3))
    for limits in (Limits({"p95": 50.0}), Limits(rate_percent=50.0), Limits(speedup=1.5)):
        (breach,) = judged(few, limits)
        assert breach.refuses
        assert breach.sentence == (
            "B: no limit can be judged: it takes 4 runs of each side, in turn, to tell a difference from chance; "
            "missing: 1 of A, 1 of B"
        )
    assert judged(compare_sides(*alone(made_up(0), made_up(1))), Limits()) == []
