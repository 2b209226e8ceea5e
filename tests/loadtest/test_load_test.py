"""What a load test can be asked to do, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from triptych.errors import ContractError
from triptych_loadtest.load_test import LoadProfile, LoadTest


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate_per_s": 2, "fps": 3}, "one of them 0"),
        ({"rate_per_s": -1}, "must be at least 0"),
        ({"fps": -1}, "must be at least 0"),
        ({"poisson": True}, "poisson needs a rate"),
        ({"users": 0}, "must be at least 1, but are 0, 1 and 10"),
        ({"processes": 0}, "must be at least 1"),
        ({"intervals": 0}, "must be at least 1"),
        ({"batch": 0}, "a batch must be of 1 to 16 images, but is of 0"),
        ({"batch": 17}, "a batch must be of 1 to 16 images"),
        ({"sizes_wh": ((9999, 9999),)}, "pixels, but 9999x9999 is"),
        ({"seed": 0}, "the seed must be 1 to 2147483647, but is 0"),
        ({"duration_s": 0}, "must be above 0 seconds"),
        ({"warmup_s": -1}, "the warm-up at least 0"),
        ({"address": "http://127.0.0.1:8001"}, "the address must be host:port"),
        ({"metrics_url": "gpu-host:8002"}, "the metrics must be at a URL such as http://HOST:8002/metrics"),
    ],
)
def test_a_load_test_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        LoadTest(Path("images"), **options)


def test_a_shape_needs_a_time() -> None:
    with pytest.raises(ContractError, match="the shape ramp needs a run time"):
        LoadProfile(shape="ramp")


@pytest.mark.parametrize(
    ("options", "loop"),
    [
        ({}, "closed"),
        ({"rate_per_s": 5}, "constant"),
        ({"rate_per_s": 5, "poisson": True}, "poisson"),
        ({"fps": 5}, "camera"),
    ],
)
def test_the_options_choose_the_loop(options: dict[str, Any], loop: str) -> None:
    assert LoadProfile(**options).loop == loop


def test_processes_share_the_rate() -> None:
    profile = LoadTest(Path("images"), rate_per_s=30, processes=4, shape="ramp", duration_s=8, seed=3).profile
    assert profile == LoadProfile(rate_per_s=7.5, shape="ramp", duration_s=8, seed=3)
    assert [profile.rate_at(elapsed_s) for elapsed_s in (0, 4, 8, 9)] == [0, 3.75, 7.5, 7.5]


@pytest.mark.parametrize(
    ("options", "per_s"), [({"rate_per_s": 30, "processes": 4}, 30), ({"fps": 5, "users": 3}, 15), ({"users": 3}, 150)]
)
def test_how_many_requests_a_second_are_expected(options: dict[str, Any], per_s: float) -> None:
    assert LoadTest(Path("images"), **options).expected_per_s == per_s


def test_processes_share_the_users() -> None:
    numbers = [LoadTest(Path("images"), users=5, processes=2).numbers(process) for process in range(2)]
    assert [list(of_one) for of_one in numbers] == [[0, 2, 4], [1, 3]]
    assert list(LoadTest(Path("images"), rate_per_s=5, users=4, processes=2).numbers(1)) == [1], "one of an open loop"


def test_a_user_waits_for_its_turn_in_the_shape() -> None:
    test = LoadTest(Path("images"), users=10, shape="spike", duration_s=10)
    assert test.turn_s(0, 1.0) == 1.0
    assert test.turn_s(9, 1.0) == pytest.approx(4.0, abs=0.06)
    assert test.turn_s(9, 4.5) == 4.5
    assert test.turn_s(9, 7.0) >= 10, "it has had its turn"
    open_loop = LoadTest(Path("images"), rate_per_s=5, shape="spike", duration_s=10)
    assert open_loop.turn_s(0, 7.0) == 7.0, "its rate takes the shape"
