"""The gate's latency: enough requests, and what their p95 is at most."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from triptych_build.verify import latency
from triptych_build.verify.latency import Latency, measure_latency


class Client:
    """Stands in for a server: answers at once, and counts."""

    requests = 0

    def __init__(self, address: str, **_: object) -> None:
        Client.requests = 0

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def detect(self, image: bytes) -> None:
        Client.requests += 1


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(latency, "DetectionClient", Client)
    path = tmp_path / "a.jpg"
    path.write_bytes(b"-")
    return path


def test_enough_requests_to_bound_the_p95(image: Path) -> None:
    assert measure_latency("here:1", [image]).requests == 130
    assert Client.requests == 130 + latency.WARM_UP


def test_three_times_as_many_where_there_is_a_limit(image: Path) -> None:
    assert measure_latency("here:1", [image], has_limit=True).requests == 390


@pytest.mark.parametrize(("has_limit", "least"), [(False, 20), (True, 130)])
def test_a_slow_server_is_asked_fewer_times(
    has_limit: bool, least: int, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "SECONDS", 0.0)
    monkeypatch.setattr(latency, "LIMITED_SECONDS", 0.0)
    assert measure_latency("here:1", [image], has_limit=has_limit).requests == least


def test_few_requests_say_that_they_are_few() -> None:
    few = Latency.of([10.0] * 20)
    assert few.p95_at_most_ms is None
    assert str(few) == ("p50 10.0 ms, p95 10.0 ms (too few requests to bound the p95: 20; it takes 130)")


def test_a_bound_holds() -> None:
    """Of a latency whose p95 is known, the bound is below it in one of a hundred tries at most."""
    rng = np.random.default_rng(7)
    tries = [Latency.of(rng.exponential(10, 390).tolist()).p95_at_most_ms for _ in range(300)]
    bounds = [bound for bound in tries if bound is not None]
    assert len(bounds) > 200
    assert sum(bound < 10 * np.log(20) for bound in bounds) <= 6
    assert np.median(bounds) < 45
