"""Several runs of one side as one."""

from __future__ import annotations

import numpy as np
import pytest

from support.measured import INTERVALS, made_up, with_client, with_workload
from triptych.errors import ContractError
from triptych.measure.comparison import compare_runs
from triptych.measure.pool import pool
from triptych.measure.run_file import Failure, Run


def test_two_runs_of_a_side_are_put_after_each_other() -> None:
    runs = [made_up(seed=1), made_up(seed=2, requests=100, detector=20.0)]
    both = pool(runs)
    assert len(both.intervals) == 2 * INTERVALS
    assert both.client.latencies.count == both.attribution.requests == both.server["detector"].requests == 300
    mean = both.attribution.breakdowns["mean"]
    assert mean.total_ms == pytest.approx(both.client.latencies.mean_ms)
    assert sum(mean.owners().values()) == pytest.approx(mean.total_ms)
    assert mean.owners()["detector"] == pytest.approx((200 * 80 + 100 * 20) / 300, rel=0.02)
    assert pool(runs[:1]) is runs[0]


def test_from_three_runs_on_what_drifts_between_runs_counts() -> None:
    """Each run drifts by 10%: intervals within runs take that for a difference, whole runs do not."""
    seeds = range(100)
    drift = np.exp(np.random.default_rng(0).normal(0, 0.1, (len(seeds), 10)))

    def side(seed: int, first: int) -> list[Run]:
        return [made_up(10 * seed + first + n, 0.05, 50, slower=drift[seed, first + n]) for n in range(5)]

    single = sum(compare_runs(side(seed, 0)[0], side(seed, 5)[0]).latency["mean"].significant for seed in seeds)
    pooled = sum(compare_runs(pool(side(seed, 0)), pool(side(seed, 5))).latency["mean"].significant for seed in seeds)
    assert single > 50
    assert pooled <= 14  # 5 on average, and 4 standard deviations


def test_failures_of_pooled_runs_add_up() -> None:
    failed = with_client(made_up(), failures={"ImageError": Failure(2, "bad")}, busiest=0.5)
    client = pool([failed, made_up(), failed]).client
    assert client.failures == {"ImageError": Failure(4, "bad")}
    assert (client.failed, client.busiest) == (4, 0.5)


def test_runs_of_different_loops_are_not_one_side() -> None:
    run = made_up()
    with pytest.raises(ContractError, match="the first run of a side is closed and run 2 of it is video"):
        pool([run, with_workload(run, loop="video")])
