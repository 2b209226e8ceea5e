"""The asyncio client against real gRPC on loopback."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from support.fake_server import CLASS_NAMES, LOST, QUEUE_FULL, UNHEALTHY, FakeServer
from triptych.client import AsyncDetectionClient
from triptych.errors import (
    DeadlineExceeded,
    ImageError,
    RequestCancelled,
    ServerOverloaded,
    ServerUnavailable,
    TriptychError,
)


def test_async_client(server: FakeServer, tmp_path: Path) -> None:
    path = tmp_path / "street.jpg"
    path.write_bytes(b"abcd")

    async def run() -> None:
        async with AsyncDetectionClient(server.address) as client:
            assert await client.is_ready()
            assert await client.server_version() == "2.51.0"
            assert await client.class_names() == CLASS_NAMES
            results = await asyncio.gather(*(client.detect(bytes(size), score_threshold=0.5) for size in range(1, 9)))
            assert [len(result) for result in results] == list(range(1, 9))
            results = await client.detect_batch([path, b"bad", tmp_path / "none.jpg", np.zeros((2, 2), np.uint8), b"a"])
            assert [bool(result.error) for result in results] == [False, True, True, False, False]
            assert len(results[0]) == 4
            assert (await client.detect(path)).source == str(path)
            with pytest.raises(ImageError, match="there is no file"):
                await client.detect(tmp_path / "none.jpg")
            with pytest.raises(ImageError, match="cannot be read"):
                await client.detect(b"bad")

    asyncio.run(run())


@pytest.mark.usefixtures("quick")
def test_async_retries(server: FakeServer) -> None:
    async def run() -> None:
        async with AsyncDetectionClient(server.address) as client:
            server.script.extend([LOST, UNHEALTHY])
            assert len(await client.detect(b"abc")) == 3
            server.script.append(QUEUE_FULL)
            with pytest.raises(ServerOverloaded):
                await client.detect(b"abc")

    asyncio.run(run())
    assert len(server.requests) == 4


def test_async_nobody_answers(nobody: str) -> None:
    async def run() -> None:
        async with AsyncDetectionClient(nobody) as client:
            assert not await client.is_ready()
            with pytest.raises(ServerUnavailable, match="connection refused"):
                await client.detect(b"a")

    asyncio.run(run())


def test_async_deadline(server: FakeServer) -> None:
    server.delay_s = 60

    async def run() -> None:
        async with AsyncDetectionClient(server.address) as client:
            with pytest.raises(DeadlineExceeded, match=r"within 0\.3 s"):
                await client.detect(b"a", timeout_s=0.3)

    asyncio.run(run())


def test_cancellation_is_asyncios_own_and_reaches_the_server(server: FakeServer) -> None:
    server.delay_s = 60

    async def run() -> None:
        async with AsyncDetectionClient(server.address) as client:
            call = asyncio.create_task(client.detect(b"a"))
            assert await asyncio.to_thread(server.entered.wait, 5)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert await asyncio.to_thread(server.cancelled.wait, 5)
            server.delay_s = 0
            assert len(await client.detect(b"a")) == 1  # the client goes on

    asyncio.run(run())


def test_cancellation_between_tries(nobody: str) -> None:
    async def run() -> None:
        async with AsyncDetectionClient(nobody, retries=50) as client:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(client.detect(b"a"), 0.2)

    asyncio.run(run())


def test_async_client_closed_under_a_call(server: FakeServer) -> None:
    server.delay_s = 60

    async def run() -> None:
        client = AsyncDetectionClient(server.address)
        call = asyncio.create_task(client.detect(b"a"))
        assert await asyncio.to_thread(server.entered.wait, 5)
        await client.close()
        with pytest.raises(RequestCancelled, match="the client was closed"):
            await call
        with pytest.raises(TriptychError, match="is closed; make a new one"):
            await client.detect(b"a")
        await client.close()

    asyncio.run(run())


def test_async_client_closed_between_tries(nobody: str) -> None:
    async def run() -> None:
        client = AsyncDetectionClient(nobody, retries=50)
        call = asyncio.create_task(client.detect(b"a"))
        await asyncio.sleep(0.2)
        await client.close()
        with pytest.raises(TriptychError, match="is closed"):
            await call

    asyncio.run(run())


def test_async_client_belongs_to_one_loop(server: FakeServer) -> None:
    client = AsyncDetectionClient(server.address)

    async def first() -> None:
        await client.detect(b"a")
        await client.close()
        client._closed = False

    asyncio.run(first())
    with pytest.raises(TriptychError, match="one client for each loop"):
        asyncio.run(client.server_version())
