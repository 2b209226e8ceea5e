"""What a conversation with the server asks of whoever carries it out: to call, to wait, to work.

A `Flow` is a generator that yields effects, receives their results and returns the result of a client's method.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, NamedTuple, Protocol, TypeVar


class Call(NamedTuple):
    """Call `rpc` of the stub. The answer is the response, or a grpc.RpcError thrown into the generator."""

    rpc: str
    request: Any
    timeout_s: float
    endpoint: int = 0
    headers: tuple[tuple[str, str], ...] = ()


class Pending(Protocol):
    """A call that was started. Both gRPC's futures and asyncio's tasks are so."""

    def done(self) -> bool:
        """Return whether it has ended."""

    def result(self) -> Any:
        """Return the response of a call that has ended, or raise its error."""

    def cancel(self) -> Any:
        """End it."""


class Start(NamedTuple):
    """Start a call and do not wait. The answer is a `Pending`."""

    call: Call


class Wait(NamedTuple):
    """Wait until one of these calls has ended, or for so long."""

    pending: tuple[Pending, ...]
    timeout_s: float


class Sleep(NamedTuple):
    """Wait."""

    seconds: float


class Work(NamedTuple):
    """Call a function that reads a file or computes for milliseconds. The answer is its result, or its error."""

    function: Callable[[], Any]


Effect = Call | Start | Wait | Sleep | Work
T = TypeVar("T")
Flow = Generator[Effect, Any, T]
