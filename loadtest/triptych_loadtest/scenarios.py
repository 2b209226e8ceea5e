"""MLPerf's scenarios as load tests: the loads that a scenario takes, and its result out of their runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from triptych.errors import ContractError
from triptych.measure.run_file import Run
from triptych.measure.scenario import (
    DEFAULT_BUDGET_MS,
    MIN_DURATION_S,
    RULES,
    Scenario,
    ScenarioName,
    TriedRate,
    estimate_ms,
    keeps,
    missing,
)
from triptych.measure.sweep_search import closer_rate, find_most
from triptych_loadtest.load_test import LoadTest

PERCENT = 99
"""The percentile that the bound of the server scenario holds for."""

SHORT = 0.1
"""In the search, a load goes on for this share of the duration..."""

FEWEST_TO_TRY = 300
"""...and a rate for so many queries at least."""

SLOWEST = 1 / 64
"""A server that does not keep the bound at this share of its capacity keeps it at no rate."""

LONGEST_PILOT_S = 10.0
"""How long the load goes on, at most, that finds out how many queries a second there are."""

Measure = Callable[[LoadTest], Run]
Say = Callable[[str], None]


def carry_out(
    name: ScenarioName, test: LoadTest, duration_s: float | None, budget_ms: float | None, measure: Measure, say: Say
) -> Run:
    """Carry out a scenario, and return its last run with the result.

    Args:
        name: which.
        test: where, with which images and from how many processes; for `offline` also the users and the batch that its
            images are sent by, which the rules leave open.
        duration_s: how long; None for the valid length.
        budget_ms: the bound of the server scenario; None for `DEFAULT_BUDGET_MS`.
        measure: carries out a load test.
        say: tells somebody what is done next.

    Raises:
        ContractError: the load test has a loop of its own.
    """
    check_load(name, test)
    if name == "server":
        return _Server(test, duration_s or MIN_DURATION_S, budget_ms or DEFAULT_BUDGET_MS, measure, say).carry_out()
    if name != "offline":
        test = replace(test, users=1, batch=RULES[name].samples_per_query)
    seconds = duration_s or _valid_length_s(name, test, measure, say)
    say(f"{name}: {RULES[name].sends}, for {seconds:.0f} s")
    run = measure(replace(test, duration_s=seconds))
    return replace(run, scenario=_result(name, run))


def check_load(name: ScenarioName, test: LoadTest) -> None:
    """Refuse a load test that has a loop of its own.

    Raises:
        ContractError: it has.
    """
    if test.fps or test.shape != "constant" or test.sizes_wh or (test.rate_per_s and name != "server"):
        raise ContractError(
            f"the scenario {name} has a loop of its own, so --fps, --shape and --sizes do not go with it"
            f"{'' if name == 'server' else ', and neither does --rate'}"
        )


def _valid_length_s(name: ScenarioName, test: LoadTest, measure: Measure, say: Say) -> float:
    """Return how long it takes to have as many queries as a valid run needs."""
    say(f"{name}: how many queries a second there are, for {LONGEST_PILOT_S:.0f} s")
    per_s = _queries(name, measure(replace(test, duration_s=LONGEST_PILOT_S, traces=False))) / LONGEST_PILOT_S
    # A tenth more, as LoadGen has it, since the rate of a short load is not quite that of a long one.
    return max(MIN_DURATION_S, 1.1 * RULES[name].min_queries / per_s) if per_s else MIN_DURATION_S


def _queries(name: ScenarioName, run: Run) -> int:
    return run.client.latencies.count * (run.workload.batch if name == "offline" else 1)


def _result(name: ScenarioName, run: Run) -> Scenario:
    """Return the result of a scenario that has no bound."""
    client, percent = run.client, RULES[name].percent
    queries = _queries(name, run)
    measured_ms = value = problem = None
    if client.failed:
        problem = f"{client.failed} requests failed"
    elif percent is None:
        value = queries / client.seconds if client.seconds else None
    else:
        value, measured_ms = estimate_ms(client.latencies, percent), client.latencies.percentile_ms(percent)
    if value is None and not problem:
        problem = f"too few queries: {queries:,}, and {RULES[name].min_queries:,} are needed"
    return Scenario(
        name,
        value,
        problem or "",
        measured_ms,
        queries,
        client.seconds,
        missing(name, queries, client.seconds),
        None,
        [],
    )


def find_rate(capacity_per_s: float, bears: Callable[[float], bool], confirms: Callable[[float], bool]) -> float | None:
    """Return the highest rate that keeps the bound, to 5%; None if there is none.

    The first rate is half of what users got who wait for their answers. It is doubled or halved until one keeps the
    bound and another does not, and then `find_most` closes in.

    Args:
        capacity_per_s: what the users got.
        bears: measures a rate shortly, and says whether it kept the bound.
        confirms: measures it for the whole duration, and says the same.
    """

    def between(borne: float, beyond: float) -> float | None:
        if math.isinf(beyond):
            return 2 * borne
        if not borne:
            return beyond / 2 if beyond > capacity_per_s * SLOWEST else None
        return closer_rate(borne, beyond)

    return find_most([capacity_per_s / 2], bears, confirms, between).borne or None


@dataclass
class _Server:
    """The server scenario under way.

    Attributes:
        test: what every load has in common.
        duration_s: how long the rate is measured that is the result.
        budget_ms: the bound.
        tried: the rates so far.
        runs: of them, and of the load before the search.
    """

    test: LoadTest
    duration_s: float
    budget_ms: float
    measure: Measure
    say: Say
    tried: list[TriedRate] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)

    def carry_out(self) -> Run:
        """Measure the rate that was asked for, or find one."""
        if asked_per_s := self.test.rate_per_s:
            return self._with_result(asked_per_s if self._confirms(asked_per_s) else None)
        pilot_s = min(LONGEST_PILOT_S, max(1.0, SHORT * self.duration_s))
        self.say(f"server: how many queries a second {self.test.users} users get, for {pilot_s:.0f} s")
        self.runs.append(self.measure(replace(self.test, batch=1, duration_s=pilot_s, traces=False)))
        capacity_per_s = self.runs[-1].client.rate_per_s
        return self._with_result(find_rate(capacity_per_s, self._bears, self._confirms) if capacity_per_s else None)

    def _bears(self, rate_per_s: float) -> bool:
        """Measure a rate shortly; the percentile counts as measured."""
        seconds = max(SHORT * self.duration_s, FEWEST_TO_TRY / rate_per_s)
        run = self._run(rate_per_s, seconds, traces=False)
        return self._note(run, rate_per_s, seconds, held=_over(run, self.budget_ms) <= (1 - PERCENT / 100) * _due(run))

    def _confirms(self, rate_per_s: float) -> bool:
        """Measure a rate for the whole duration, and decide as LoadGen does."""
        run = self._run(rate_per_s, self.duration_s, traces=self.test.traces)
        held = keeps(_over(run, self.budget_ms), _due(run), PERCENT)
        return self._note(run, rate_per_s, self.duration_s, held=held)

    def _run(self, rate_per_s: float, seconds: float, *, traces: bool) -> Run:
        self.say(f"server: {rate_per_s:.3g} queries/s, for {seconds:.0f} s")
        test = replace(self.test, rate_per_s=rate_per_s, poisson=True, batch=1, duration_s=seconds, traces=traces)
        return self.measure(test)

    def _note(self, run: Run, rate_per_s: float, seconds: float, *, held: bool) -> bool:
        self.runs.append(run)
        due = _due(run)
        self.tried.append(TriedRate(rate_per_s, seconds, _over(run, self.budget_ms) / due if due else 1.0, held))
        return held

    def _with_result(self, confirmed_per_s: float | None) -> Run:
        """Return the last run, with the result."""
        run = self.runs[-1]
        client = run.client
        queries = client.latencies.count
        return replace(
            run,
            scenario=Scenario(
                name="server",
                value=confirmed_per_s,
                problem="" if confirmed_per_s else f"no rate that was tried kept {self.budget_ms:g} ms at p{PERCENT}",
                measured_ms=client.latencies.percentile_ms(PERCENT),
                queries=queries,
                seconds=client.seconds,
                missing=missing("server", queries, client.seconds),
                budget_ms=self.budget_ms,
                tried=self.tried,
            ),
        )


def _due(run: Run) -> int:
    return run.client.latencies.count + run.client.failed + run.client.unsent


def _over(run: Run, budget_ms: float) -> int:
    """Return how many queries took longer than the bound; one that failed or was not sent did."""
    return run.client.latencies.count_above(budget_ms) + run.client.failed + run.client.unsent
