"""Clients of several servers, over real gRPC: one is lost, all are lost, one is slow, one comes back."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from support.fake_server import DRAINING, LOST, QUEUE_FULL, UNKNOWN, FakeServer
from triptych.client import AsyncDetectionClient, DetectionClient
from triptych.errors import ContractError, ModelNotFound, RequestError, ServerOverloaded
from triptych.wire import channel, endpoints
from triptych.wire.endpoints import BUDGET_AT_FIRST, FAILURES_TO_OPEN


@pytest.fixture
def pair() -> Iterator[tuple[FakeServer, FakeServer]]:
    servers = FakeServer().start(), FakeServer().start()
    yield servers
    for server in servers:
        server.stop()


@pytest.fixture
def victim() -> Iterator[subprocess.Popen[str]]:
    """A server in a process of its own, which prints its port."""
    program = (
        "import signal\nfrom support.fake_server import FakeServer\n"
        "print(FakeServer(delay_s=0.01).start().port, flush=True)\nsignal.pause()"
    )
    tests = Path(__file__).parents[1]
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=tests, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    yield process
    process.kill()
    process.communicate()


def port_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def addresses(servers: tuple[FakeServer, ...]) -> str:
    return ",".join(server.address for server in servers)


def test_in_turn(pair: tuple[FakeServer, FakeServer]) -> None:
    with DetectionClient([server.address for server in pair]) as client:
        for _ in range(10):
            client.detect(b"abc")
    assert [len(server.requests) for server in pair] == [5, 5]


@pytest.mark.parametrize("given", ["", [], "a:1,a:1", "a:1,b", "a:1,,b:1"])
def test_addresses_that_are_none(given: str | list[str]) -> None:
    with pytest.raises(ContractError, match="the address"):
        DetectionClient(given)


def test_one_of_two_is_killed_under_load(server: FakeServer, victim: subprocess.Popen[str]) -> None:
    """No request fails, and the lost one is left alone once its circuit is open."""
    server.delay_s = 0.01
    lost = f"127.0.0.1:{port_of(victim)}"
    with DetectionClient([server.address, lost]) as client, ThreadPoolExecutor(8) as pool:
        work = [pool.submit(client.detect, b"abc") for _ in range(400)]
        while len(server.requests) < 100:
            time.sleep(0.005)
        victim.kill()
        assert all(len(done.result()) == 3 for done in work)
        assert client._session.endpoints.is_open(1)
    assert 200 <= len(server.requests) < 400


def test_one_of_two_is_killed_under_load_of_tasks(server: FakeServer, victim: subprocess.Popen[str]) -> None:
    server.delay_s = 0.01
    lost = f"127.0.0.1:{port_of(victim)}"

    async def run() -> list[int]:
        async with AsyncDetectionClient([server.address, lost]) as client:

            async def user() -> list[int]:
                return [len(await client.detect(b"abc")) for _ in range(50)]

            users = [asyncio.create_task(user()) for _ in range(8)]
            while len(server.requests) < 100:
                await asyncio.sleep(0.005)
            victim.kill()
            return [count for counts in await asyncio.gather(*users) for count in counts]

    assert asyncio.run(run()) == [3] * 400


def test_one_that_comes_back_gets_requests_again(
    pair: tuple[FakeServer, FakeServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "OPEN_S", 0.05)
    monkeypatch.setattr(endpoints._Circuit, "pause_s", 0.05)
    monkeypatch.setattr(endpoints, "MAX_OPEN_S", 0.2)
    pair[0].stop()
    with DetectionClient(addresses(pair)) as client:
        for _ in range(3 * FAILURES_TO_OPEN):
            client.detect(b"abc")
        pair[0].start()
        deadline = time.monotonic() + 20
        while not pair[0].requests and time.monotonic() < deadline:
            client.detect(b"abc")
            time.sleep(0.01)
    assert pair[0].requests


def test_no_storm_where_all_fail(pair: tuple[FakeServer, FakeServer]) -> None:
    """What is sent on top is at most a tenth, and the ten that a new client has."""
    for server in pair:
        server.everywhere = LOST
    count = 300
    with DetectionClient(addresses(pair)) as client:
        client._session.jitter = lambda: 0.0
        for _ in range(count):
            with pytest.raises(RequestError):
                client.detect(b"abc")
    sent = sum(len(server.requests) for server in pair)
    assert count < sent <= 1.1 * count + BUDGET_AT_FIRST


def test_an_overloaded_server_sends_one_to_the_other(pair: tuple[FakeServer, FakeServer]) -> None:
    pair[0].everywhere = QUEUE_FULL
    with DetectionClient(addresses(pair)) as client:
        for _ in range(6):
            assert len(client.detect(b"abc")) == 3
    pair[1].everywhere = QUEUE_FULL
    with DetectionClient(addresses(pair)) as client, pytest.raises(ServerOverloaded):
        client.detect(b"abc")


def test_hedge_takes_the_faster_answer(pair: tuple[FakeServer, FakeServer]) -> None:
    with DetectionClient(addresses(pair), hedge_after_ms=30) as client:
        client.spec()
        pair[0].delay_s = 5
        began = time.monotonic()
        for _ in range(4):
            assert len(client.detect(b"abc")) == 3
        assert time.monotonic() - began < 4
    assert pair[0].cancelled.wait(5)


def test_hedge_of_tasks(pair: tuple[FakeServer, FakeServer]) -> None:
    async def run() -> int:
        async with AsyncDetectionClient(addresses(pair), hedge_after_ms=30) as client:
            await client.spec()
            pair[0].delay_s = 5
            return sum([len(await client.detect(b"abc")) for _ in range(4)])

    assert asyncio.run(run()) == 12
    assert pair[0].cancelled.wait(5)


def test_no_hedge_without_a_budget(pair: tuple[FakeServer, FakeServer]) -> None:
    for server in pair:
        server.delay_s = 0.05
    with DetectionClient(addresses(pair), hedge_after_ms=1) as client:
        for _ in range(40):
            client.detect(b"abc")
    assert sum(len(server.requests) for server in pair) <= 1.1 * 42 + BUDGET_AT_FIRST


def test_no_hedge_by_default(pair: tuple[FakeServer, FakeServer]) -> None:
    for server in pair:
        server.delay_s = 0.1
    with DetectionClient(addresses(pair)) as client:
        for _ in range(4):
            client.detect(b"abc")
    assert sum(len(server.requests) for server in pair) == 4


@pytest.mark.parametrize("hedge_after_ms", [0, -1, float("inf")])
def test_hedge_that_is_refused(hedge_after_ms: float) -> None:
    with pytest.raises(ContractError, match="hedge_after_ms must be above 0"):
        DetectionClient("a:1,b:1", hedge_after_ms=hedge_after_ms)


def test_ready_if_one_is(pair: tuple[FakeServer, FakeServer]) -> None:
    with DetectionClient(addresses(pair)) as client:
        pair[0].ready = False
        assert client.is_ready()
        pair[1].ready = False
        assert not client.is_ready()


def test_counters_are_of_one_server(pair: tuple[FakeServer, FakeServer]) -> None:
    with DetectionClient(addresses(pair)) as client, pytest.raises(ContractError, match="counters are one server's"):
        client.statistics()


def test_servers_with_other_names_each_give_their_own(pair: tuple[FakeServer, FakeServer]) -> None:
    pair[1].class_names = ("dog", "cat", "cow")
    with DetectionClient(addresses(pair)) as client:
        seen = {client.detect(b"abc").class_names for _ in range(4)}
    assert seen == {pair[0].class_names, pair[1].class_names}


class Tunnel:
    """Passes bytes on to a server, until it swallows all that comes and says nothing, as a lost network does."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.swallows = False
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            far = socket.create_connection(("127.0.0.1", self._target))
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        swallowed = False
        try:
            while data := source.recv(1 << 16):
                swallowed = swallowed or self.swallows
                if not swallowed:  # a connection that was lost stays lost
                    sink.sendall(data)
        except OSError:
            pass
        finally:
            for end in (source, sink):
                end.close()


def test_a_connection_that_is_half_open_is_noticed(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the keepalive of the clients shortened; it is noticed long before the deadline, and then all goes on."""
    short = {"grpc.keepalive_time_ms": 300, "grpc.keepalive_timeout_ms": 300, "grpc.http2.ping_timeout_ms": 300}
    monkeypatch.setattr(channel, "OPTIONS", tuple((name, short.get(name, value)) for name, value in channel.OPTIONS))
    with (
        closing(Tunnel(server.port)) as tunnel,
        DetectionClient(f"127.0.0.1:{tunnel.port}", timeout_s=60) as client,
    ):
        client.detect(b"abc")
        tunnel.swallows = True
        threading.Timer(0.5, setattr, (tunnel, "swallows", False)).start()
        began = time.monotonic()
        assert len(client.detect(b"abc")) == 3
        assert time.monotonic() - began < 20
        assert tunnel.connections >= 2


def test_a_server_that_ends_sends_one_to_the_other(pair: tuple[FakeServer, FakeServer]) -> None:
    pair[0].everywhere = DRAINING
    with DetectionClient(addresses(pair)) as client:
        for _ in range(6):
            assert len(client.detect(b"abc")) == 3
    assert pair[0].requests


def test_a_model_that_a_server_never_had_is_not_asked_for_elsewhere(pair: tuple[FakeServer, FakeServer]) -> None:
    for server in pair:
        server.everywhere = UNKNOWN
    with DetectionClient(addresses(pair)) as client, pytest.raises(ModelNotFound):
        client.detect(b"abc")
    assert sum(len(server.requests) for server in pair) == 1
