"""Limits of a comparison, and what breaks them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from support.measured import made_up
from triptych.errors import ContractError
from triptych.measure.comparison import compare_runs
from triptych.measure.limits import Breach, Limits, judge
from triptych.measure.ratio import Ratio
from triptych.measure.remarks import of_breaches


def test_limits_count_what_is_more_than_chance() -> None:
    limits = Limits({"p50": 5.0, "p95": 20.0}, rate_percent=5.0)
    slower = compare_runs(made_up(1, 0.05), made_up(2, 0.05, slower=1.1))
    breaches = judge(slower, limits)
    assert [breach.sentence.split(" (")[0] for breach in breaches] == [
        f"B: p50 is longer by {100 * (slower.b_ms['p50'] / slower.a_ms['p50'] - 1):.1f}%",
        f"B: the rate is lower by {100 * (1 - slower.b_rate_per_s / slower.a_rate_per_s):.1f}%",
    ]
    assert breaches[0].sentence.endswith("and 5% are allowed")
    assert all(breach.proven for breach in breaches)
    assert judge(compare_runs(made_up(1, 0.05), made_up(2, 0.05)), limits) == []
    assert judge(compare_runs(made_up(1, 0.05), made_up(2, 0.05, slower=0.5)), limits) == []


def test_a_loss_that_may_be_chance_breaks_no_limit_but_is_warned_of() -> None:
    noisy = compare_runs(made_up(1, 0.05), made_up(2, 0.05))
    noisy = replace(noisy, a_ms={**noisy.a_ms, "p99": 100.0}, b_ms={**noisy.b_ms, "p99": 112.0})
    noisy = replace(noisy, latency={**noisy.latency, "p99": Ratio(100 / 112, 0.7, 1.2)})
    (breach,) = judge(noisy, Limits({"p99": 5.0}))
    assert not breach.proven
    assert breach.sentence == "B: p99 is longer by 12.0% (100.0 to 112.0 ms), and 5% are allowed"
    (remark,) = of_breaches([breach, Breach("proven", True)])
    assert remark.id == "limit-unproven"
    assert remark.text.startswith(f"{breach.sentence}; but these runs cannot tell that from chance")


def test_a_speedup_must_be_shown() -> None:
    faster = compare_runs(made_up(1), made_up(2, detector=20.0))
    assert judge(faster, Limits(speedup=2.0)) == []
    (breach,) = judge(faster, Limits(speedup=3.0))
    assert breach.proven
    assert breach.sentence.startswith("B: the speed-up of the mean is 2.")
    assert breach.sentence.endswith("and 3x is required")
    chance = replace(faster, latency={**faster.latency, "mean": Ratio(2.5, 0.9, 7.0)})
    assert judge(chance, Limits(speedup=2.0))


def test_a_least_speedup_that_is_none_is_refused() -> None:
    with pytest.raises(ContractError, match=r"must be above 1, but is 0\.9"):
        Limits(speedup=0.9)


def test_limits_without_evidence_are_refused() -> None:
    few = compare_runs(made_up(1, intervals=2), made_up(2))
    for limits in (Limits({"p95": 50.0}), Limits(rate_percent=50.0), Limits(speedup=1.5)):
        with pytest.raises(ContractError, match="cannot be judged: each side needs three intervals"):
            judge(few, limits)
