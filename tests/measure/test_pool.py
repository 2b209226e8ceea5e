"""Several runs of one side as one."""

from __future__ import annotations

import numpy as np
import pytest

from support.measured import made_up, with_client, with_workload
from triptych.errors import ContractError
from triptych.measure.comparison import compare_sides
from triptych.measure.pool import Side, pool
from triptych.measure.run_file import Failure


def test_runs_of_a_side_are_one_run() -> None:
    runs = [made_up(seed=1), made_up(seed=2, requests=100, detector=20.0)]
    both = pool(runs)
    assert both.client.latencies.count == both.attribution.requests == both.server["detector"].requests == 300
    mean = both.attribution.breakdowns["mean"]
    assert mean.total_ms == pytest.approx(both.client.latencies.mean_ms)
    assert sum(mean.owners().values()) == pytest.approx(mean.total_ms)
    assert mean.owners()["detector"] == pytest.approx((200 * 80 + 100 * 20) / 300, rel=0.02)
    assert pool(runs[:1]) is runs[0]


def test_what_drifts_between_runs_counts() -> None:
    """Each run drifts by 10%, and the requests of each by 5%."""
    seeds = range(100)
    drift = np.exp(np.random.default_rng(0).normal(0, 0.1, (len(seeds), 8)))

    def side(seed: int, first: int) -> Side:
        runs = range(first, 8, 2)
        return Side(str(first), [made_up(8 * seed + n, 0.05, 50, slower=drift[seed, n], intervals=1) for n in runs])

    wrong = sum(compare_sides(side(seed, 0), side(seed, 1)).latency["mean"].significant for seed in seeds)
    assert wrong <= 14  # 5 on average, and 4 standard deviations


def test_one_run_given_twice_is_no_more_evidence() -> None:
    with pytest.raises(ContractError, match="run 1 and run 3, of one side, are the same run"):
        Side("a", [made_up(1), made_up(2), made_up(1)])


def test_failures_of_pooled_runs_add_up() -> None:
    failed = with_client(made_up(), failures={"ImageError": Failure(2, "bad")}, busiest=0.5, unsent=3)
    client = pool([failed, made_up(), failed]).client
    assert client.failures == {"ImageError": Failure(4, "bad")}
    assert (client.failed, client.busiest, client.unsent) == (4, 0.5, 6)


def test_runs_of_different_loops_are_not_one_side() -> None:
    run = made_up()
    with pytest.raises(ContractError, match="the first run of a side is closed and run 2 of it is video"):
        pool([run, with_workload(run, loop="video")])
