"""Clients of a Triptych server, blocking and asyncio.

    from triptych import DetectionClient

    with DetectionClient("127.0.0.1:8001") as client:
        for detection in client.detect("street.jpg"):
            print(detection.name, detection.score, detection.box_xyxy)

Every method has a deadline. It covers reading files, all requests, all retries and the pauses between them. Only
regular files are read. A pipe or a device could keep a caller waiting for ever, and so can a file system that stops
answering, such as NFS without its server.

A call is tried again if the connection is refused or lost, or if a model restarts. That is safe because inference has
no side effects. A request under which a model's process died may be the cause, so it is sent once more and no further:
`ServerFault.process_died` says so. A client of several servers tries again at another one, at once. All that is sent
again is at most a tenth of the client's requests, and ten more at first, so that a service in need is not asked ever
more. The logger `triptych` gets a warning for each retry. Every error is a
`triptych.errors.TriptychError`.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, TypeVar, cast

import grpc
import grpc.aio
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2_grpc

from triptych.contract import DETECTION, DetectorSpec
from triptych.detections import Detections
from triptych.errors import RequestCancelled, TriptychError
from triptych.vision.inputs import ImageLike
from triptych.wire.channel import check_addresses, metadata, open_channel
from triptych.wire.credentials import LOCAL, Credentials
from triptych.wire.effects import Call, Effect, Flow, Sleep, Start, Wait
from triptych.wire.session import Session
from triptych.wire.statistics import Snapshot
from triptych.wire.tracing import client_span, trace_headers

__all__ = ["AsyncDetectionClient", "Credentials", "DetectionClient", "ImageLike"]

DEFAULT_ADDRESS = "127.0.0.1:8001"
DEFAULT_TIMEOUT_S = 10.0
DEFAULT_RETRIES = 2

T = TypeVar("T")


class _Client:
    """The part that both clients share. Nothing here waits."""

    def __init__(
        self,
        address: str | Sequence[str] = DEFAULT_ADDRESS,
        *,
        model: str = DETECTION.name,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retries: int = DEFAULT_RETRIES,
        credentials: Credentials = LOCAL,
        headers: Mapping[str, str] | None = None,
        hedge_after_ms: float | None = None,
        shared_memory: bool = False,
    ) -> None:
        """Make a client. It connects with its first call.

        Args:
            address: the server's gRPC address, host:port. Several, in a list or with commas between them, are asked in
                turn; they serve the same models.
            model: the name of the ensemble.
            timeout_s: the deadline of every method that is called without one, in seconds.
            retries: how often to try a call again after a lost connection or while a model restarts.
            credentials: how to connect; by default in plain text.
            headers: headers for every call, such as {"authorization": "Bearer ..."}.
            hedge_after_ms: after how long without an answer images go to another server too; the first answer counts.
                None: never. It needs several addresses, and counts as a retry in the budget.
            shared_memory: hand requests of a megabyte and more to a server on this machine through shared memory, and
                arrays uncompressed. It takes the server's key, and a client that is closed at the end.

        Raises:
            ContractError: an argument is wrong, or a file of the credentials cannot be read.
        """
        hedge_after_s = None if hedge_after_ms is None else hedge_after_ms / 1000
        addresses = check_addresses(address)
        self._session = Session(addresses, model, timeout_s, retries, credentials, hedge_after_s, shared_memory)
        self._metadata = metadata(headers or {})
        credentials.for_channel()  # a file that cannot be read is known now
        self._credentials = credentials
        self._closed = False
        self._prepare()

    def _prepare(self) -> None:
        raise NotImplementedError

    @property
    def address(self) -> str:
        """The server's address, host:port; several have commas between them."""
        return self._session.address

    @property
    def credentials(self) -> Credentials:
        """How the client connects."""
        return self._credentials

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.address!r}, model={self._session.model!r})"

    def _check_open(self) -> None:
        if self._closed:
            raise TriptychError(f"this client of {self.address} is closed; make a new one")


class DetectionClient(_Client):
    """A blocking client. Threads may share it."""

    def _prepare(self) -> None:
        addresses = self._session.addresses
        self._channels = [open_channel(grpc, address, self._credentials) for address in addresses]
        self._stubs = [service_pb2_grpc.GRPCInferenceServiceStub(channel) for channel in self._channels]

    def detect(
        self,
        image: ImageLike,
        *,
        score_threshold: float | None = None,
        iou_threshold: float | None = None,
        timeout_s: float | None = None,
        request_id: str = "",
    ) -> Detections:
        """Detect objects in one image.

        Args:
            image: a path, an encoded image, or uint8 [height, width, 3] (RGB) or [height, width] (grey).
            score_threshold: drop objects with a lower score, 0..1; None takes the model's default.
            iou_threshold: of two boxes of a class that overlap more, drop the one with the lower score, 0..1; None
                takes the model's default.
            timeout_s: this call's deadline in seconds; None takes the client's.
            request_id: the request's name in the server's traces and logs.

        Raises:
            ImageError: the image cannot be read, here or by the server.
            ContractError: an argument or the server's answer does not fit the contract.
            RequestError: the call failed; its subclasses say how.
        """
        with client_span("detect", self.address, request_id):
            return self._run(self._session.detect(image, score_threshold, iou_threshold, timeout_s, request_id))

    def detect_batch(
        self,
        images: Sequence[ImageLike] | NDArray[np.uint8],
        *,
        score_threshold: float | None = None,
        iou_threshold: float | None = None,
        timeout_s: float | None = None,
        request_id: str = "",
    ) -> list[Detections]:
        """Detect objects in many images, and return the results in the same order.

        An image that cannot be read raises no ImageError: its result has no objects, and `error` says why. If the
        server does not take so many images in one request, they go in several, one after the other. The deadline covers
        them all. All else is as in `detect`.
        """
        with client_span("detect_batch", self.address, request_id):
            return self._run(self._session.detect_batch(images, score_threshold, iou_threshold, timeout_s, request_id))

    def class_names(self) -> tuple[str, ...]:
        """Return the names of the classes of the detector that is served now, by id."""
        return self.spec().class_names

    def spec(self) -> DetectorSpec:
        """Return the input size, classes and default thresholds of the detector that is served now."""
        return self._run(self._session.spec())

    def detector_version(self) -> str | None:
        """Return the version of the detector that is served now, such as "3"; None if it is not known.

        It is not where servers have different ones, or do not say. A server that does not answer is left out.
        """
        return self._run(self._session.detector_version())

    def is_ready(self) -> bool:
        """Return whether the server answers and serves the model now. There is only one try."""
        return self._run(self._session.is_ready())

    def server_version(self) -> str:
        """Return the version of the Triton server, such as '2.51.0'."""
        return self._run(self._session.server_version())

    def statistics(self) -> Snapshot:
        """Return the server's counters of every model. Subtract two snapshots to get the counts of a window."""
        return self._run(self._session.statistics())

    def close(self) -> None:
        """Close the connection. Calls that are under way in other threads end with RequestCancelled."""
        try:
            if not self._closed:
                self._run(self._session.close())
        finally:
            self._closed = True
            for channel in self._channels:
                channel.close()

    def __enter__(self) -> DetectionClient:
        self._check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, flow: Flow[T]) -> T:
        self._check_open()
        resume: Callable[[], Effect] = partial(next, flow)
        try:
            while True:
                resume = self._outcome(flow, resume())
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            flow.close()

    def _outcome(self, flow: Flow[Any], effect: Effect) -> Callable[[], Effect]:
        """Carry out an effect, and return how to resume the flow with its result or error."""
        try:
            return partial(flow.send, self._perform(effect))
        except Exception as error:
            return partial(flow.throw, error)

    def _perform(self, effect: Effect) -> Any:
        if isinstance(effect, Call):
            return self._send(getattr(self._stubs[effect.endpoint], effect.rpc), effect)
        if isinstance(effect, Start):
            return self._send(getattr(self._stubs[effect.call.endpoint], effect.call.rpc).future, effect.call)
        if isinstance(effect, Wait):
            ended = threading.Event()
            for pending in effect.pending:
                cast(grpc.Future, pending).add_done_callback(lambda _: ended.set())
            return ended.wait(effect.timeout_s)
        if isinstance(effect, Sleep):
            return time.sleep(effect.seconds)
        return effect.function()

    def _send(self, rpc: Callable[..., Any], call: Call) -> Any:
        try:
            return rpc(
                call.request, timeout=call.timeout_s, metadata=(*self._metadata, *call.headers, *trace_headers())
            )
        except ValueError:
            # gRPC raises it if another thread has closed the channel since the check.
            self._check_open()
            raise


class AsyncDetectionClient(_Client):
    """An asyncio client for one event loop. Any number of the loop's tasks may share it."""

    def _prepare(self) -> None:
        # A channel belongs to the event loop that runs when it is opened. So the first call opens it.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._channels: list[Any] = []
        self._stubs: list[Any] = []

    async def detect(
        self,
        image: ImageLike,
        *,
        score_threshold: float | None = None,
        iou_threshold: float | None = None,
        timeout_s: float | None = None,
        request_id: str = "",
    ) -> Detections:
        """Detect objects in one image; see `DetectionClient.detect`."""
        with client_span("detect", self.address, request_id):
            return await self._run(self._session.detect(image, score_threshold, iou_threshold, timeout_s, request_id))

    async def detect_batch(
        self,
        images: Sequence[ImageLike] | NDArray[np.uint8],
        *,
        score_threshold: float | None = None,
        iou_threshold: float | None = None,
        timeout_s: float | None = None,
        request_id: str = "",
    ) -> list[Detections]:
        """Detect objects in many images; see `DetectionClient.detect_batch`."""
        with client_span("detect_batch", self.address, request_id):
            return await self._run(
                self._session.detect_batch(images, score_threshold, iou_threshold, timeout_s, request_id)
            )

    async def class_names(self) -> tuple[str, ...]:
        """Return the names of the classes of the detector that is served now, by id."""
        return (await self.spec()).class_names

    async def spec(self) -> DetectorSpec:
        """Return the detector's properties; see `DetectionClient.spec`."""
        return await self._run(self._session.spec())

    async def detector_version(self) -> str | None:
        """Return the detector's version; see `DetectionClient.detector_version`."""
        return await self._run(self._session.detector_version())

    async def is_ready(self) -> bool:
        """Return whether the server answers and serves the model now. There is only one try."""
        return await self._run(self._session.is_ready())

    async def server_version(self) -> str:
        """Return the version of the Triton server, such as '2.51.0'."""
        return await self._run(self._session.server_version())

    async def statistics(self) -> Snapshot:
        """Return the server's counters of every model; see `DetectionClient.statistics`."""
        return await self._run(self._session.statistics())

    async def close(self) -> None:
        """Close the connection. Calls that are under way in other tasks end with RequestCancelled."""
        try:
            if self._session.memory and self._channels and not self._closed:
                await self._run(self._session.close())
        finally:
            self._closed = True
            for channel in self._channels:
                await channel.close()

    async def __aenter__(self) -> AsyncDetectionClient:
        self._check_open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _run(self, flow: Flow[T]) -> T:
        self._connect()
        resume: Callable[[], Effect] = partial(next, flow)
        try:
            while True:
                resume = await self._outcome(flow, resume())
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            flow.close()

    async def _outcome(self, flow: Flow[Any], effect: Effect) -> Callable[[], Effect]:
        """Carry out an effect, and return how to resume the flow with its result or error."""
        try:
            return partial(flow.send, await self._perform(effect))
        except Exception as error:
            return partial(flow.throw, error)

    def _connect(self) -> None:
        self._check_open()
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
            addresses = self._session.addresses
            self._channels = [open_channel(grpc.aio, address, self._credentials) for address in addresses]
            self._stubs = [service_pb2_grpc.GRPCInferenceServiceStub(channel) for channel in self._channels]
        elif self._loop is not loop:
            raise TriptychError("this client was first used in another event loop; make one client for each loop")

    async def _perform(self, effect: Effect) -> Any:
        if isinstance(effect, Call):
            return await self._call(effect)
        if isinstance(effect, Start):
            task = asyncio.ensure_future(self._call(effect.call))
            task.add_done_callback(_take_error)
            return task
        if isinstance(effect, Wait):
            tasks = cast("tuple[asyncio.Task[Any], ...]", effect.pending)
            return await asyncio.wait(tasks, timeout=effect.timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if isinstance(effect, Sleep):
            return await asyncio.sleep(effect.seconds)
        return await asyncio.to_thread(effect.function)

    async def _call(self, effect: Call) -> Any:
        self._check_open()  # another task may have closed it while this one slept between two tries
        stub = self._stubs[effect.endpoint]
        headers = (*self._metadata, *effect.headers, *trace_headers())
        call = getattr(stub, effect.rpc)(effect.request, timeout=effect.timeout_s, metadata=headers)
        # Awaiting the call directly raises CancelledError both when this task is cancelled and when the channel is
        # closed. A task in between tells the two apart.
        answer = asyncio.ensure_future(call)
        try:
            await asyncio.wait((answer,))
        finally:
            answer.cancel()  # cancels the call too, and does nothing once it has ended
        if answer.cancelled():
            raise RequestCancelled(
                f"the request to {self.address} was cancelled: the client was closed", grpc.StatusCode.CANCELLED
            )
        return answer.result()


def _take_error(task: asyncio.Task[Any]) -> None:
    """Look at a task's error, so that asyncio does not complain if nobody else does."""
    if not task.cancelled():
        task.exception()
