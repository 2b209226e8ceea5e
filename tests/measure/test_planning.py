"""How many servers, and what they cost: figures that can be checked by hand."""

from __future__ import annotations

import pytest

from triptych.measure.capacity import Capacity
from triptych.measure.planning import Needs, plan, sentences

BEARS = Capacity(50.0, 90.0, "8 users (the knee)", 4.0, closed=True)


def test_a_rate_is_shared_by_servers_of_which_a_part_stays_free() -> None:
    result = plan(Needs(1000, 100), BEARS)
    assert (result.servers, result.planned_per_s) == (25, 40)
    assert result.utilisation == pytest.approx(0.8)
    assert result.utilisation_with_one_lost == pytest.approx(1000 / 24 / 50)
    assert result.scale_at_inflight == pytest.approx(3.2)
    assert (result.cost_per_hour, result.cost_per_million_images) == (None, None)


def test_a_spare_server_costs_what_the_others_do() -> None:
    result = plan(Needs(1000, 100, spare=1, price_per_hour=1.5), BEARS)
    assert (result.servers, result.cost_per_hour) == (26, 39)
    assert result.cost_per_million_images == pytest.approx(39 / 3.6)


@pytest.mark.parametrize(
    ("needs", "bears", "sentence"),
    [
        (Needs(1000, 100), BEARS, "25 servers for 1000 images/s at a p95 of 100 ms"),
        (Needs(1000, 100, spare=1), BEARS, "26 servers, 1 of them spare for 1000 images/s at a p95 of 100 ms"),
        (Needs(10, 100), BEARS, "it is used to 20%, and nothing answers when it is lost: --spare 1"),
        (Needs(80, 100), BEARS, "and to 160% when one is lost, which is more than they bear within the p95: --spare 1"),
        (Needs(80, 100, spare=1), BEARS, "they are used to 53%, and to 80% when one is lost"),
        (Needs(1000, 100, price_per_hour=1), BEARS, "that costs 25.00 an hour, and 6.94 for a million images"),
        (Needs(1000, 100), BEARS, "another server is needed at 3.2 requests in each of them, waiting or worked on"),
        (
            Needs(80, 100),
            Capacity(50, 90, "", 4, closed=False, gpus=("NVIDIA L4",) * 4),
            "2 servers (8 GPUs) for 80 images/s at a p95 of 100 ms",
        ),
    ],
)
def test_what_it_says(needs: Needs, bears: Capacity, sentence: str) -> None:
    assert any(sentence in line for line in sentences(plan(needs, bears))), sentences(plan(needs, bears))


def test_users_that_wait_are_an_assumption() -> None:
    assert any("--rates` measures that" in line for line in plan(Needs(1, 1), BEARS).assumptions)
    open_loop = Capacity(50.0, 90.0, "a rate of 50/s", 4.0, closed=False)
    assert not any("--rates" in line for line in plan(Needs(1, 1), open_loop).assumptions)
