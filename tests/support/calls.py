"""Call a method of either client, so that a test covers both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from support.fake_server import FakeServer
from triptych.client import AsyncDetectionClient, DetectionClient

METHODS: list[Callable[[Any], Any]] = [
    lambda client: client.detect(b"abc"),
    lambda client: client.detect_batch([b"a", b"b"]),
    lambda client: client.spec(),
    lambda client: client.server_version(),
    lambda client: client.statistics(),
]
METHOD_NAMES = ["detect", "detect_batch", "spec", "server_version", "statistics"]


def call_sync(server: FakeServer, method: Callable[[Any], Any]) -> Any:
    """Call a method of the blocking client once, without retries."""
    with DetectionClient(server.address, retries=0) as client:
        return method(client)


def call_async(server: FakeServer, method: Callable[[Any], Any]) -> Any:
    """Call the same method of the asyncio client."""

    async def run() -> Any:
        async with AsyncDetectionClient(server.address, retries=0) as client:
            return await method(client)

    return asyncio.run(run())


calls = pytest.mark.parametrize("call", [call_sync, call_async], ids=["sync", "async"])
