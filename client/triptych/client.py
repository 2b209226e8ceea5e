"""Clients of a Triptych server, blocking and asyncio.

    from triptych import DetectionClient

    with DetectionClient("127.0.0.1:8001") as client:
        for found in client.detect("street.jpg"):
            print(found.name, found.score, found.box_xyxy)

Every method has a deadline, which covers all that it does: reading files, each request, each retry and the pauses
between. A connection that is refused or lost, and a model whose process restarts, are tried again; inference has no
side effects. Whatever goes wrong is a `triptych.errors.TriptychError`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

import grpc
import grpc.aio
from tritonclient.grpc import service_pb2_grpc

from triptych.contract import DETECTION, DetectorSpec
from triptych.detections import Detections
from triptych.errors import RequestCancelled, TriptychError
from triptych.vision.inputs import ImageLike
from triptych.wire.channel import Tls, check_address, metadata, open_channel
from triptych.wire.session import Call, Effect, Flow, Session, Sleep
from triptych.wire.statistics import Snapshot

__all__ = ["AsyncDetectionClient", "DetectionClient", "ImageLike", "Tls"]

DEFAULT_ADDRESS = "127.0.0.1:8001"
DEFAULT_TIMEOUT_S = 10.0
DEFAULT_RETRIES = 2

T = TypeVar("T")


class _Client:
    """What both clients are made of; nothing here waits."""

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        model: str = DETECTION.name,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retries: int = DEFAULT_RETRIES,
        tls: Tls | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Connect on the first call, not here.

        Args:
            address: the server's gRPC address, host:port.
            model: the ensemble to ask.
            timeout_s: the deadline of every method that is not given its own, in seconds.
            retries: how often a call is tried again after a lost connection or while a model restarts.
            tls: encrypt the connection; None leaves it in plain text.
            headers: sent with every call, such as {"authorization": "Bearer ..."}.

        Raises:
            ContractError: an argument is not what it should be, or a file of `tls` cannot be read.
        """
        self._session = Session(check_address(address), model, timeout_s, retries)
        self._metadata = metadata(headers or {})
        self._credentials = tls.credentials() if tls else None
        self._closed = False
        self._prepare()

    def _prepare(self) -> None:
        raise NotImplementedError

    @property
    def address(self) -> str:
        """The server's address."""
        return self._session.address

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.address!r}, model={self._session.model!r})"

    def _check_open(self) -> None:
        if self._closed:
            raise TriptychError(f"this client of {self.address} is closed; make a new one")


class DetectionClient(_Client):
    """A blocking client; threads may share it."""

    def _prepare(self) -> None:
        self._channel = open_channel(grpc, self.address, self._credentials)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

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
            score_threshold: drop what scores below, 0..1; None takes the model's default.
            iou_threshold: of two boxes of a class that overlap more, drop the weaker, 0..1; None as above.
            timeout_s: this call's deadline in seconds; None takes the client's.
            request_id: a name by which the server's traces and logs know the request.

        Raises:
            ImageError: the image cannot be read, here or by the server.
            ContractError: an argument, or the server's answer, is not what it should be.
            RequestError: the call failed; its subclasses say how.
        """
        return self._run(self._session.detect(image, score_threshold, iou_threshold, timeout_s, request_id))

    def detect_batch(
        self,
        images: Sequence[ImageLike],
        *,
        score_threshold: float | None = None,
        iou_threshold: float | None = None,
        timeout_s: float | None = None,
        request_id: str = "",
    ) -> list[Detections]:
        """Detect objects in many images; the results come in their order.

        An image that cannot be read costs its own result alone: `error` says why. More images than the server takes
        in one request are sent in several, one after the other, and the deadline covers them all.

        Args and errors are those of `detect`, but that no ImageError is raised.
        """
        return self._run(self._session.detect_batch(images, score_threshold, iou_threshold, timeout_s, request_id))

    @property
    def class_names(self) -> tuple[str, ...]:
        """The detector's class names, by id; the first use asks the server."""
        return self.spec().class_names

    def spec(self) -> DetectorSpec:
        """What the server says of its detector: input size, classes, default thresholds. The first use asks it."""
        return self._run(self._session.spec())

    def is_ready(self) -> bool:
        """Whether the server answers, and serves the model, now; one try."""
        return self._run(self._session.is_ready())

    def server_version(self) -> str:
        """The version of the Triton server, such as '2.51.0'."""
        return self._run(self._session.server_version())

    def statistics(self) -> Snapshot:
        """The server's own counters of every model; the difference of two is what a window took."""
        return self._run(self._session.statistics())

    def close(self) -> None:
        """Close the connection; calls under way in other threads end with RequestCancelled."""
        self._closed = True
        self._channel.close()

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

    def _outcome(self, flow: Flow[Any], effect: Effect) -> Callable[[], Effect]:
        """Carry out an effect; how to resume the flow with what came of it."""
        try:
            return partial(flow.send, self._perform(effect))
        except Exception as error:
            return partial(flow.throw, error)

    def _perform(self, effect: Effect) -> Any:
        if isinstance(effect, Call):
            rpc = getattr(self._stub, effect.rpc)
            try:
                return rpc(effect.request, timeout=effect.timeout_s, metadata=self._metadata)
            except ValueError:
                # gRPC's word for a channel that another thread has closed since the check.
                self._check_open()
                raise
        if isinstance(effect, Sleep):
            return time.sleep(effect.seconds)
        return effect.function()


class AsyncDetectionClient(_Client):
    """An asyncio client, for one event loop; any number of its tasks may share it."""

    def _prepare(self) -> None:
        # A channel belongs to the event loop that runs when it is opened, so the first call opens it.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._channel: Any = None
        self._stub: Any = None

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
        return await self._run(self._session.detect(image, score_threshold, iou_threshold, timeout_s, request_id))

    async def detect_batch(
        self,
        images: Sequence[ImageLike],
        *,
        score_threshold: float | None = None,
        iou_threshold: float | None = None,
        timeout_s: float | None = None,
        request_id: str = "",
    ) -> list[Detections]:
        """Detect objects in many images; see `DetectionClient.detect_batch`."""
        return await self._run(
            self._session.detect_batch(images, score_threshold, iou_threshold, timeout_s, request_id)
        )

    async def class_names(self) -> tuple[str, ...]:
        """The detector's class names, by id; the first use asks the server."""
        return (await self.spec()).class_names

    async def spec(self) -> DetectorSpec:
        """What the server says of its detector; see `DetectionClient.spec`."""
        return await self._run(self._session.spec())

    async def is_ready(self) -> bool:
        """Whether the server answers, and serves the model, now; one try."""
        return await self._run(self._session.is_ready())

    async def server_version(self) -> str:
        """The version of the Triton server, such as '2.51.0'."""
        return await self._run(self._session.server_version())

    async def statistics(self) -> Snapshot:
        """The server's own counters of every model; see `DetectionClient.statistics`."""
        return await self._run(self._session.statistics())

    async def close(self) -> None:
        """Close the connection; calls under way in other tasks end with RequestCancelled."""
        self._closed = True
        if self._channel is not None:
            await self._channel.close()

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

    async def _outcome(self, flow: Flow[Any], effect: Effect) -> Callable[[], Effect]:
        """Carry out an effect; how to resume the flow with what came of it."""
        try:
            return partial(flow.send, await self._perform(effect))
        except Exception as error:
            return partial(flow.throw, error)

    def _connect(self) -> None:
        self._check_open()
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
            self._channel = open_channel(grpc.aio, self.address, self._credentials)
            self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        elif self._loop is not loop:
            raise TriptychError("this client was first used in another event loop; make one client for each loop")

    async def _perform(self, effect: Effect) -> Any:
        if isinstance(effect, Call):
            return await self._call(effect)
        if isinstance(effect, Sleep):
            return await asyncio.sleep(effect.seconds)
        return await asyncio.to_thread(effect.function)

    async def _call(self, effect: Call) -> Any:
        self._check_open()  # it may have been closed while this task slept between two tries
        call = getattr(self._stub, effect.rpc)(effect.request, timeout=effect.timeout_s, metadata=self._metadata)
        # Awaiting the call itself raises CancelledError both when this task is cancelled and when the channel is
        # closed under it; a task in between tells them apart.
        answer = asyncio.ensure_future(call)
        try:
            await asyncio.wait((answer,))
        finally:
            answer.cancel()  # and the call with it; neither minds once it has ended
        if answer.cancelled():
            raise RequestCancelled(
                f"the request to {self.address} was cancelled: the client was closed", grpc.StatusCode.CANCELLED
            )
        return answer.result()
