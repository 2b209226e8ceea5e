"""MLPerf's scenarios as load tests, on a generator that is made up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from support.measured import made_up
from triptych.errors import ContractError
from triptych.measure.histogram import Histogram
from triptych.measure.run_file import Failure, Run
from triptych.measure.scenario import Scenario, ScenarioName
from triptych.measure.sweep_search import CLOSE_ENOUGH
from triptych_loadtest.load_test import LoadTest
from triptych_loadtest.scenarios import carry_out, find_rate

TEST = LoadTest(Path("images"))


class Generator:
    """A load generator whose users get an answer after 25 ms, and whose queue is long from a rate on."""

    def __init__(self, capacity_per_s: float = 40, failures: int = 0) -> None:
        self.capacity_per_s, self.failures = capacity_per_s, failures
        self.tests: list[LoadTest] = []

    def __call__(self, test: LoadTest) -> Run:
        self.tests.append(test)
        per_s = test.rate_per_s or min(self.capacity_per_s, 40 * test.users)
        count = round(per_s * test.duration_s)
        slow = count if per_s > self.capacity_per_s else 0
        run = made_up()
        client = replace(
            run.client,
            latencies=Histogram([25.0] * (count - slow) + [2000.0] * slow),
            failures={"ServerFault": Failure(self.failures, "it died")} if self.failures else {},
            seconds=test.duration_s,
        )
        return replace(run, client=client, workload=replace(run.workload, batch=test.batch))


def scenario(name: ScenarioName, generator: Callable[[LoadTest], Run], test: LoadTest = TEST, **how: float) -> Scenario:
    run = carry_out(name, test, how.get("duration_s"), how.get("budget_ms"), generator, lambda _: None)
    assert run.scenario
    return run.scenario


@pytest.mark.parametrize(("name", "batch"), [("single-stream", 1), ("multi-stream", 8)])
def test_one_user_sends_query_after_query(name: ScenarioName, batch: int) -> None:
    generator = Generator()
    result = scenario(name, generator, duration_s=30)
    (test,) = generator.tests
    assert (test.users, test.batch, test.duration_s, test.rate_per_s) == (1, batch, 30, 0)
    assert result.value == pytest.approx(25, rel=0.01)
    assert result.queries == 1200
    assert result.missing == ["30 s of 600 s"]


def test_a_valid_run_is_as_long_as_the_rules_demand() -> None:
    generator = Generator()
    result = scenario("single-stream", generator)
    assert [test.duration_s for test in generator.tests] == [10, 600]
    assert result.missing == []


def test_a_valid_run_of_a_slow_server_is_longer() -> None:
    generator = Generator(capacity_per_s=8)
    result = scenario("offline", generator)
    assert generator.tests[-1].duration_s == pytest.approx(1.1 * 24_576 / 8)
    assert result.missing == []
    assert result.value == pytest.approx(8, rel=0.001)


def test_offline_is_sent_as_the_users_and_the_batch_say() -> None:
    generator = Generator()
    result = scenario("offline", generator, replace(TEST, users=3, batch=4), duration_s=10)
    assert [(test.users, test.batch) for test in generator.tests] == [(3, 4)]
    assert result.value == pytest.approx(160)
    assert result.queries == 1600


def test_the_server_s_rate_is_searched_and_confirmed() -> None:
    generator = Generator(capacity_per_s=40)
    result = scenario("server", generator, duration_s=60, budget_ms=100)
    assert generator.tests[0].rate_per_s == 0
    assert all(test.poisson and test.batch == 1 for test in generator.tests[1:])
    assert [test.traces for test in generator.tests[-2:]] == [False, True]
    assert result.value
    assert 40 / 1.05 <= result.value <= 40
    assert (result.budget_ms, result.seconds) == (100, 60)
    assert result.tried[-1].held
    assert not result.problem
    # A rate is tried long enough to tell 1% of its queries.
    assert all(rate.seconds * rate.rate_per_s >= 300 * 0.999 for rate in result.tried)


def test_a_rate_that_is_named_is_not_searched() -> None:
    generator = Generator(capacity_per_s=40)
    result = scenario("server", generator, replace(TEST, rate_per_s=30), duration_s=60)
    assert [(test.rate_per_s, test.duration_s) for test in generator.tests] == [(30, 60)]
    assert (result.value, result.budget_ms) == (30, 100)
    beyond = scenario("server", generator, replace(TEST, rate_per_s=50), duration_s=60)
    assert (beyond.value, beyond.problem) == (None, "no rate that was tried kept 100 ms at p99")
    assert beyond.tried[0].over == 1


def test_a_server_that_keeps_the_bound_at_no_rate() -> None:
    result = scenario("server", Generator(), duration_s=60, budget_ms=10)
    assert result.value is None
    assert "kept 10 ms at p99" in result.problem


def test_requests_that_fail_are_no_result() -> None:
    result = scenario("single-stream", Generator(failures=3), duration_s=30)
    assert (result.value, result.problem) == (None, "3 requests failed")
    assert scenario("server", Generator(failures=100), replace(TEST, rate_per_s=30), duration_s=60).value is None


def test_too_few_queries_are_no_result() -> None:
    result = scenario("multi-stream", Generator(), duration_s=10)
    assert (result.value, result.problem) == (None, "too few queries: 400, and 662 are needed")


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("single-stream", {"rate_per_s": 10.0}),
        ("offline", {"fps": 5.0}),
        ("server", {"shape": "ramp"}),
        ("multi-stream", {"sizes_wh": ((640, 480),)}),
    ],
)
def test_a_loop_of_one_s_own_is_refused(name: ScenarioName, changed: dict[str, object]) -> None:
    with pytest.raises(ContractError, match=f"the scenario {name} has a loop of its own"):
        scenario(name, Generator(), replace(TEST, **changed))  # type: ignore[arg-type]


class Server:
    """A server that keeps its bound up to a rate; in a short run up to so many times that."""

    def __init__(self, limit_per_s: float, shortly: float = 1.0) -> None:
        self.limit_per_s, self.shortly = limit_per_s, shortly
        self.tried: list[float] = []

    def bears(self, rate_per_s: float) -> bool:
        self.tried.append(rate_per_s)
        return rate_per_s <= self.limit_per_s * self.shortly

    def confirms(self, rate_per_s: float) -> bool:
        return rate_per_s <= self.limit_per_s

    def found(self) -> float | None:
        return find_rate(100, self.bears, self.confirms)


@pytest.mark.parametrize("limit_per_s", [3.2, 30, 49.9, 50, 77, 99, 100.5, 260])
def test_the_search_finds_the_rate_to_five_percent(limit_per_s: float) -> None:
    server = Server(limit_per_s)
    found = server.found()
    assert found
    assert limit_per_s / CLOSE_ENOUGH <= found <= limit_per_s
    assert len(server.tried) <= 12


def test_a_rate_that_does_not_last_is_lowered() -> None:
    found = Server(60, shortly=1.2).found()
    assert found
    assert 60 / CLOSE_ENOUGH <= found <= 60


@pytest.mark.parametrize(("limit_per_s", "shortly"), [(0.0, 1.0), (1.0, 90.0)])
def test_no_rate_keeps_the_bound(limit_per_s: float, shortly: float) -> None:
    assert Server(limit_per_s, shortly).found() is None
