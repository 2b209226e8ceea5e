"""Limits of a run, and the sentences of those it broke."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from triptych.measure.run_file import Run
from triptych_loadtest.limits import Limits, broken_limits

MakeRun = Callable[..., Run]


@pytest.mark.parametrize(
    "limits",
    [
        Limits(),
        Limits(budget_ms=10, max_p95_ms=10, max_p99_ms=10, min_rate_per_s=1.5),
        Limits(budget_ms=11, max_p95_ms=11, max_p99_ms=11, max_failures=5, min_rate_per_s=1),
    ],
)
def test_limits_that_are_kept(make_run: MakeRun, limits: Limits) -> None:
    assert broken_limits(limits, make_run([10.0] * 700)) == []


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        (Limits(max_p95_ms=9.5), "p95 is 10.0 ms; 9.5 are allowed"),
        (Limits(max_p99_ms=0.5), "p99 is 10.0 ms; 0.5 are allowed"),
        (Limits(budget_ms=1), "p95, against the budget, is 10.0 ms; 1 are allowed"),
        (Limits(max_failures=1), "2 requests failed; 1 are allowed"),
        (Limits(max_failures=2, min_rate_per_s=2), "1.5 requests/s were answered; 2 are required"),
    ],
)
def test_a_limit_that_is_broken(make_run: MakeRun, limits: Limits, sentence: str) -> None:
    assert sentence in broken_limits(limits, make_run([10.0] * 3, failures=2))


def test_a_percentile_of_too_few_requests_is_not_shown_to_be_within_a_limit(make_run: MakeRun) -> None:
    (sentence,) = broken_limits(Limits(max_p99_ms=20), make_run([10.0] * 493))
    assert sentence.startswith(
        "p99 is 10.0 ms, but that it keeps 20 is not shown: too few requests to bound the p99: 493; it takes 662; "
        "measure for about "
    )
    assert broken_limits(Limits(max_p95_ms=20), make_run([10.0] * 493)) == []


def test_a_percentile_must_be_within_its_limit_by_its_bound(make_run: MakeRun) -> None:
    latencies_ms = [30.0 if number % 25 == 0 else 10.0 for number in range(1000)]
    assert broken_limits(Limits(max_p95_ms=20), make_run(latencies_ms)) == [
        "p95 is 10.0 ms, and may be up to 30.0; 20 are allowed"
    ]


def test_a_run_without_an_answer_is_refused_anyway(make_run: MakeRun) -> None:
    assert broken_limits(Limits(max_failures=9), make_run([], failures=9)) == ["no request succeeded"]
    assert broken_limits(Limits(), make_run([], failures=9)) == [
        "9 requests failed; 0 are allowed",
        "no request succeeded",
    ]


def test_a_run_that_left_requests_out_is_refused_anyway(make_run: MakeRun) -> None:
    """An open loop above what the server takes answered what it had sent in good time, and the rest was forgotten."""
    assert broken_limits(Limits(max_failures=9999), make_run([10.0] * 3, unsent=2000)) == [
        "2000 requests that were due were not sent; none may be left out"
    ]
