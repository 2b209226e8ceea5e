"""More requests than the stages can answer: the surplus is refused, and what nobody waits for any more is not run."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path

import grpc
import pytest

from support.steady import Planted, measured_in_peace
from triptych.client import AsyncDetectionClient, DetectionClient
from triptych.contract import DETECTION, DETECTOR, PREPROCESS
from triptych.errors import DeadlineExceeded, RequestError, ServerOverloaded
from triptych.serving.queues import limit_inflight, limit_queue

pytestmark = pytest.mark.triton

LOAD_TIMEOUT_S = 60.0
SLOTS = 4
"""How many requests may be past the detector's queue: each of two instances works on one and may hold the next."""


@pytest.fixture
def image(images: Path) -> bytes:
    return (images / "0.jpg").read_bytes()


@pytest.fixture
def client(planted: Planted) -> Iterator[DetectionClient]:
    with DetectionClient(planted.server.grpc_address, retries=0, timeout_s=60) as opened:
        yield opened
    planted.stall(False)


@pytest.fixture
def short_queue(planted: Planted) -> Iterator[int]:
    """Let no more than three requests wait for the detector."""
    control = planted.server.control
    before = control.config(DETECTOR.name)
    control.change(DETECTOR.name, partial(limit_queue, size=3), LOAD_TIMEOUT_S)
    yield 3
    control.load(DETECTOR.name, LOAD_TIMEOUT_S, before)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def finished(client: DetectionClient, model: str) -> int:
    """How many requests a model has answered since it was loaded."""
    counters = client.statistics().get(model)
    return counters.requests if counters else 0


def test_the_surplus_is_refused_and_the_rest_is_answered(
    planted: Planted, client: DetectionClient, short_queue: int, image: bytes
) -> None:
    before = finished(client, DETECTOR.name)
    planted.stall(True)
    with ThreadPoolExecutor(16) as pool:
        calls = [pool.submit(client.detect, image) for _ in range(16)]
        surplus = 16 - short_queue - SLOTS
        wait_until(lambda: sum(call.done() for call in calls) >= surplus)
        refused_while_it_stood_still = [call for call in calls if call.done()]
        planted.stall(False)
        wait(calls)
    errors = [call.exception() for call in calls]
    assert {type(error) for error in errors} == {type(None), ServerOverloaded}
    assert all(call.exception() for call in refused_while_it_stood_still)
    answered = errors.count(None)
    assert short_queue < answered <= short_queue + SLOTS
    assert finished(client, DETECTOR.name) - before == answered, "what is refused is not run"


def test_what_nobody_waits_for_is_not_run(planted: Planted, client: DetectionClient, image: bytes) -> None:
    client.detect(image)
    before = {model: finished(client, model) for model in (PREPROCESS.name, DETECTOR.name)}
    planted.stall(True)
    patient, impatient = SLOTS + 2, 5
    with ThreadPoolExecutor(patient + impatient) as pool:
        calls = [pool.submit(client.detect, image) for _ in range(patient)]
        wait_until(lambda: finished(client, PREPROCESS.name) - before[PREPROCESS.name] == patient)
        late = [pool.submit(client.detect, image, timeout_s=1.0) for _ in range(impatient)]
        wait(late)
        planted.stall(False)
        wait(calls)
    assert {type(call.exception()) for call in late} <= {ServerOverloaded, DeadlineExceeded}
    assert not any(call.exception() for call in calls)
    client.detect(image)
    assert finished(client, DETECTOR.name) - before[DETECTOR.name] == patient + 1


async def _send(client: AsyncDetectionClient, image: bytes, after_s: float = 0.0) -> str:
    """Send one request, whatever becomes of it, and return how it ended."""
    await asyncio.sleep(after_s)
    try:
        await client.detect(image, timeout_s=2.0)
    except RequestError as error:
        return type(error).__name__
    return "answered"


async def _overload(address: str, image: bytes, seconds: float) -> tuple[int, Counter[str]]:
    """Return how many requests are answered to users that wait, and how three times as many ended."""
    async with AsyncDetectionClient(address, retries=0) as client:

        async def user(end: float) -> int:
            answered = 0
            while time.perf_counter() < end:
                answered += await _send(client, image) == "answered"
            return answered

        end = time.perf_counter() + seconds
        capacity = sum(await asyncio.gather(*(user(end) for _ in range(8))))
        sends = [_send(client, image, seconds * number / (3 * capacity)) for number in range(3 * capacity)]
        return capacity, Counter(await asyncio.gather(*sends))


def test_this_triton_does_not_know_a_limit_for_a_step_and_is_given_none(
    planted: Planted, client: DetectionClient
) -> None:
    """An unknown field stops it from loading the ensemble, so the field may only be where it is known."""
    control = planted.server.control
    config = control.config(DETECTION.name)
    assert config.ensemble_scheduling.max_inflight_requests == 0
    assert not limit_inflight(config, client.server_version())
    assert limit_inflight(config, "2.63.0")
    with pytest.raises(grpc.RpcError, match="failed to load 'detection'"):
        control.load(DETECTION.name, LOAD_TIMEOUT_S, config)
    assert "max_inflight_requests" in planted.server.log_path.read_text(), "it says why"
    assert client.is_ready(), "what was served stays"


@pytest.mark.timing
def test_three_times_too_much_costs_no_more_than_a_fifth_of_the_answers(planted: Planted, image: bytes) -> None:
    def check() -> None:
        capacity, outcomes = asyncio.run(_overload(planted.server.grpc_address, image, 3.0))
        assert outcomes["answered"] >= 0.8 * capacity, (capacity, outcomes)
        assert set(outcomes) <= {"answered", ServerOverloaded.__name__, DeadlineExceeded.__name__}
        with DetectionClient(planted.server.grpc_address) as client:
            began = time.perf_counter()
            client.detect(image)
            assert time.perf_counter() - began < 1.0

    measured_in_peace(check)
