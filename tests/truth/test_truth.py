"""Every figure lies within its own stated interval of a truth that was planted, as often as it says.

`PYTHONPATH=tests python -m truth` prints the table.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from _pytest.mark import ParameterSet

from truth.claims import SEEDS, Experiment, broken_claims, tally
from truth.served import load
from truth.server import FIXED_MS, Service, VirtualServer, send
from truth.suite import EXPERIMENTS


def named(experiments: list[Experiment]) -> list[ParameterSet]:
    return [pytest.param(one, id=one.name.replace("±", "+-")) for one in experiments]


@pytest.mark.parametrize("experiment", named([one for one in EXPERIMENTS if one.quick]))
def test_the_short_form(experiment: Experiment) -> None:
    assert not broken_claims(tally(experiment, experiment.quick))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("experiment", named(EXPERIMENTS))
def test_over_an_eighth_of_the_seeds(experiment: Experiment) -> None:
    assert not broken_claims(tally(experiment, SEEDS // 8))


# --- What the suite itself rests on ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("held", "is_broken"), [(0.95, False), (0.93, False), (0.8, True)])
def test_a_claim_is_broken_by_what_chance_does_not_explain(held: float, is_broken: bool) -> None:
    experiment = Experiment("x", "y", lambda seed: {"figure": seed % 100 < 100 * held}, {"figure": 0.95})
    assert bool(broken_claims(tally(experiment, 200))) is is_broken


def test_what_always_holds_is_broken_once() -> None:
    experiment = Experiment("x", "y", lambda seed: {"figure": seed != 7}, {"figure": 1.0})
    assert broken_claims(tally(experiment, 200)) == ["x: y: figure: held in 199 of 200"]


def test_an_answer_that_is_never_given_is_no_answer() -> None:
    experiment = Experiment("x", "y", lambda seed: {"figure": None if seed % 3 else True}, {"figure": 0.95})
    assert broken_claims(tally(experiment, 90)) == ["x: y: figure: told in 30 of 90"]


@pytest.mark.parametrize(("instances", "rate_per_s"), [(1, 30), (2, 70)])
def test_the_virtual_server_waits_as_queueing_theory_says(instances: int, rate_per_s: float) -> None:
    """Of Poisson arrivals and exponential times (M/M/c), by Erlang's C formula."""
    server = VirtualServer(kind="exponential", instances=instances)
    test = load(rate_per_s=rate_per_s, poisson=True)
    waits = [
        np.mean([request.queue_ms for request in send(server, Service(server, seed), test, 0.0, 1000, seed).requests])
        for seed in range(3)
    ]
    offered = rate_per_s * server.service_ms / 1000
    last = offered**instances / math.factorial(instances) * instances / (instances - offered)
    all_busy = last / (sum(offered**number / math.factorial(number) for number in range(instances)) + last)
    expected_ms = all_busy * server.service_ms / (instances - offered)
    assert np.mean(waits) == pytest.approx(expected_ms, rel=0.1)


def test_the_virtual_server_answers_at_its_capacity_and_no_faster() -> None:
    server = VirtualServer(kind="constant", instances=2)
    requests = send(server, Service(server, 0), load(rate_per_s=200), 0.0, 10, 0).requests
    ended = sorted(request.done_s for request in requests)
    assert len(requests) == pytest.approx(2000, abs=1)
    assert len(requests) / (ended[-1] - ended[0]) == pytest.approx(100, rel=0.01)
    alone = send(server, Service(server, 0), load(users=1), 0.0, 10, 0).requests
    assert {round(request.latency_ms, 6) for request in alone} == {FIXED_MS + 20}
