"""The blocking client and a server that fails, goes away and comes back, over real gRPC on loopback."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.fake_server import LOST, QUEUE_FULL, UNHEALTHY, FakeServer, Fault
from triptych.client import DetectionClient
from triptych.errors import (
    DeadlineExceeded,
    RequestCancelled,
    ServerFault,
    ServerOverloaded,
    ServerUnavailable,
    TriptychError,
)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("faults", [[LOST, LOST], [LOST, UNHEALTHY]], ids=["lost", "unhealthy"])
def test_fault_that_passes(client: DetectionClient, server: FakeServer, faults: list[Fault]) -> None:
    server.script.extend(faults)
    assert len(client.detect(b"abc")) == 3
    assert len(server.requests) == 3


@pytest.mark.usefixtures("quick")
def test_fault_that_stays(client: DetectionClient, server: FakeServer) -> None:
    server.everywhere = UNHEALTHY
    with pytest.raises(ServerFault, match=r"a model's process died at .* each time it got this request"):
        client.detect(b"abc")
    assert len(server.requests) == 2


def test_overload_is_not_tried_again(client: DetectionClient, server: FakeServer) -> None:
    server.script.append(QUEUE_FULL)
    with pytest.raises(ServerOverloaded, match="Exceeds maximum queue size"):
        client.detect(b"abc")
    assert len(server.requests) == 1


def test_nobody_answers(nobody: str) -> None:
    with (
        DetectionClient(nobody) as client,
        pytest.raises(ServerUnavailable, match=f"no server answers at {nobody} .* `triptych serve`"),
    ):
        client.detect(b"a")


def test_deadline(client: DetectionClient, server: FakeServer) -> None:
    server.delay_s = 60
    with pytest.raises(DeadlineExceeded, match=f"no answer from {server.address} within 0.3 s"):
        client.detect(b"abc", timeout_s=0.3)
    assert len(server.requests) == 1


def test_deadline_covers_all_batches(client: DetectionClient, server: FakeServer) -> None:
    server.delay_s = 0.2
    with pytest.raises(DeadlineExceeded):
        client.detect_batch([b"a"] * 40, timeout_s=0.5)
    assert len(server.requests) <= 3


@pytest.mark.timing
def test_server_that_comes_back(server: FakeServer) -> None:
    with DetectionClient(server.address, retries=0) as client:
        assert len(client.detect(b"a")) == 1
        server.stop()
        # Long enough for gRPC's own pauses between tries to connect to have grown to their limit.
        ended = time.monotonic() + 2.5
        while time.monotonic() < ended:
            with pytest.raises(ServerUnavailable):
                client.detect(b"a")
            time.sleep(0.05)
        server.start()
        started = time.monotonic()
        while not client.is_ready():
            time.sleep(0.02)
        assert time.monotonic() - started < 2
        assert len(client.detect(b"a")) == 1


def test_server_that_restarts_under_a_call(server: FakeServer) -> None:
    with DetectionClient(server.address, retries=4) as client:
        assert len(client.detect(b"a")) == 1
        server.stop()
        timer = threading.Timer(0.5, server.start)
        timer.start()
        assert len(client.detect(b"abc")) == 3
        timer.join()


def test_threads_share_a_client(client: DetectionClient, server: FakeServer) -> None:
    def work(size: int) -> list[int]:
        single = [len(client.detect(bytes(size))) for _ in range(10)]
        return [*single, *(len(result) for result in client.detect_batch([bytes(size)] * 6))]

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(work, range(1, 17)))
    assert results == [[size] * 16 for size in range(1, 17)]


def test_closed_client(server: FakeServer) -> None:
    client = DetectionClient(server.address)
    client.close()
    client.close()
    with pytest.raises(TriptychError, match=f"this client of {server.address} is closed; make a new one"):
        client.detect(b"a")
    with pytest.raises(TriptychError, match="is closed"), client:
        pass


def test_client_closed_under_a_call(server: FakeServer) -> None:
    server.delay_s = 60
    client = DetectionClient(server.address)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.detect, b"a")
        assert server.entered.wait(5)
        client.close()
        with pytest.raises(RequestCancelled):
            call.result()
