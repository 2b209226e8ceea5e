"""Whose turn it is, circuits and the budget, on a clock that the test sets."""

from __future__ import annotations

import pytest

from triptych.wire.endpoints import (
    BUDGET_AT_FIRST,
    BUDGET_MOST,
    FAILURES_TO_OPEN,
    MAX_OPEN_S,
    OPEN_S,
    Endpoints,
)


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def three(clock: Clock) -> Endpoints:
    return Endpoints(("a:1", "b:1", "c:1"), clock, first=0)


def fail(endpoints: Endpoints, number: int, times: int = FAILURES_TO_OPEN) -> None:
    for _ in range(times):
        endpoints.failed(number)


def test_in_turn(three: Endpoints) -> None:
    assert [three.next() for _ in range(5)] == [0, 1, 2, 0, 1]


def test_another_one_than_those_tried(three: Endpoints) -> None:
    assert three.next({0, 1}) == 2
    assert three.next({0, 1, 2}) in {0, 1, 2}


def test_a_circuit_opens_after_failures_in_a_row(three: Endpoints) -> None:
    fail(three, 1, FAILURES_TO_OPEN - 1)
    three.answered(1)
    fail(three, 1, FAILURES_TO_OPEN - 1)
    assert not three.is_open(1)
    three.failed(1)
    assert three.is_open(1)
    assert 1 not in {three.next() for _ in range(9)}


def test_a_failed_server_that_was_not_tried_comes_before_one_that_was(three: Endpoints) -> None:
    fail(three, 1)
    assert three.next({0, 2}) == 1


def test_all_open_is_as_if_none_was(three: Endpoints) -> None:
    for number in range(3):
        fail(three, number)
    assert sorted(three.next() for _ in range(3)) == [0, 1, 2]


def test_health_is_checked_once_at_a_time_and_less_and_less_often(three: Endpoints, clock: Clock) -> None:
    fail(three, 1)
    assert three.due() == []
    pause_s = OPEN_S
    for _ in range(8):
        clock.now_s += pause_s
        assert three.due() == [1]
        assert three.due() == []
        three.checked(1, healthy=False)
        pause_s = min(2 * pause_s, MAX_OPEN_S)
    assert pause_s == MAX_OPEN_S


def test_one_failure_opens_it_again_after_a_good_check(three: Endpoints, clock: Clock) -> None:
    fail(three, 1)
    clock.now_s += OPEN_S
    assert three.due() == [1]
    three.checked(1, healthy=True)
    assert not three.is_open(1)
    three.failed(1)
    assert three.is_open(1)
    three.answered(1)
    fail(three, 1, FAILURES_TO_OPEN - 1)
    assert not three.is_open(1)


def test_a_lone_server_is_not_checked(clock: Clock) -> None:
    alone = Endpoints(("a:1",), clock)
    fail(alone, 0)
    clock.now_s += MAX_OPEN_S
    assert alone.due() == []
    assert alone.next({0}) == 0


def test_the_budget_is_a_tenth_of_the_requests(three: Endpoints) -> None:
    assert sum(three.spend() for _ in range(100)) == BUDGET_AT_FIRST
    for _ in range(200):
        three.earn()
    assert sum(three.spend() for _ in range(100)) == pytest.approx(20, abs=1)


def test_what_is_saved_up_has_a_limit(three: Endpoints) -> None:
    for _ in range(100_000):
        three.earn()
    assert sum(three.spend() for _ in range(1000)) == BUDGET_MOST
