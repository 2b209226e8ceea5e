"""All that a client does, except waiting: a conversation with the server as generators, without input or output.

Each generator yields effects (make this call, sleep so long, do this blocking work), receives their results and returns
the result of a client's method. The two clients differ only in how they carry the effects out.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

from triptych.contract import DETECTOR, IOU_THRESHOLD, SCORE_THRESHOLD, DetectorSpec, check_threshold, names_id
from triptych.detections import Detections
from triptych.errors import (
    ContractError,
    DeadlineExceeded,
    ImageError,
    ModelNotFound,
    RequestCancelled,
    RequestError,
    ServerOverloaded,
    ServerUnavailable,
)
from triptych.model_config import detector_spec
from triptych.vision.inputs import Encoded, ImageLike, encode_image, source_of
from triptych.wire.credentials import LOCAL, Credentials
from triptych.wire.effects import Call, Flow, Pending, Sleep, Start, Wait, Work
from triptych.wire.endpoints import Endpoints
from triptych.wire.handshake import better_explained
from triptych.wire.protocol import Rows, describe_request, limit_wait, parse_response, put_images
from triptych.wire.shared_memory import SharedMemory
from triptych.wire.statistics import Snapshot, parse_statistics
from triptych.wire.status import MAX_DEATHS, Failure, Target, died_again, explain_rpc_error, is_death

BACKOFF_FACTOR = 3
"""How much longer each pause is than the one before."""

QUEUE_SHARE = 1 / 3
"""The part of its time that a request may wait in one queue. It passes two, and a third is for the work."""

MAX_BACKOFF_S = 3.0

NAMES_PAUSES_S = (0.02, 0.1, 0.5, 1.0, 2.0)
"""The pauses before an image is sent once more because its answer means class names that the detector has no more."""

CHECK_TIMEOUT_S = 1.0
"""How long a server may take to say whether it serves the model before it counts as not healthy."""

UNSAID = 0
"""What an answer means in place of a `names_id` where the server is too old to say."""

_LOG = logging.getLogger(__name__)


@dataclass
class Session:
    """What one client knows about its servers.

    Attributes:
        addresses: host:port of each.
        model: the ensemble.
        timeout_s: the default deadline of a method.
        retries: how many tries follow the first.
        credentials: how the client connects.
        hedge_after_s: after how long an image is sent to another server too; None for never.
        shared_memory: whether large images go through shared memory, with one server on this machine.
        clock: seconds that only grow.
        jitter: a factor around 1 for each pause, so that many clients do not come back at the same moment.
    """

    addresses: Sequence[str]
    model: str
    timeout_s: float
    retries: int
    credentials: Credentials = LOCAL
    hedge_after_s: float | None = None
    shared_memory: bool = False
    clock: Callable[[], float] = time.monotonic
    jitter: Callable[[], float] = field(default=partial(random.uniform, 0.75, 1.25))
    _names: dict[int, tuple[str, ...]] = field(default_factory=dict, init=False)  # by their names_id; 0: of old servers
    _max_batch: int = field(default=0, init=False)
    _checks: dict[int, Pending] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        check_timeout(self.timeout_s)
        if isinstance(self.retries, bool) or not isinstance(self.retries, int) or self.retries < 0:
            raise ContractError(f"retries must be an integer of at least 0, but got {self.retries!r}")
        if self.hedge_after_s is not None and not 0 < self.hedge_after_s < math.inf:
            raise ContractError(f"hedge_after_ms must be above 0, but got {self.hedge_after_s * 1000:g}")
        if self.shared_memory and len(self.addresses) > 1:
            raise ContractError(f"shared_memory is with one server, but got several addresses ({self.address})")
        self.memory = SharedMemory(self.address, self.credentials) if self.shared_memory else None
        self.endpoints = Endpoints(self.addresses, self.clock)

    @property
    def address(self) -> str:
        """The addresses, with commas between them."""
        return ",".join(self.addresses)

    def detect(
        self,
        image: ImageLike,
        score_threshold: float | None,
        iou_threshold: float | None,
        timeout_s: float | None,
        request_id: str,
    ) -> Flow[Detections]:
        """Detect objects in one image; raise if it cannot be read."""
        deadline = self._deadline(timeout_s)
        encoded = yield from self._load(image, deadline)
        request = describe_request(
            self.model,
            1,
            score_threshold=score_threshold,
            iou_threshold=iou_threshold,
            request_id=request_id,
        )
        [detections] = yield from self._infer(request, [encoded], deadline)
        if detections.error:
            source = f"{detections.source}: " if detections.source else ""
            raise ImageError(source + detections.error)
        return detections

    def detect_batch(
        self,
        images: Sequence[ImageLike] | NDArray[np.uint8],
        score_threshold: float | None,
        iou_threshold: float | None,
        timeout_s: float | None,
        request_id: str,
    ) -> Flow[list[Detections]]:
        """Detect objects in many images, in requests that the server takes; an unreadable one has `error` set."""
        deadline = self._deadline(timeout_s)
        if isinstance(images, (str, os.PathLike, bytes)) or (isinstance(images, np.ndarray) and images.ndim != 4):
            raise ContractError("detect_batch takes a list of images, but got one image; `detect` takes one")
        # Also checked here because no request is built for files that all fail to load.
        for name, value in ((SCORE_THRESHOLD, score_threshold), (IOU_THRESHOLD, iou_threshold)):
            if value is not None:
                check_threshold(name, value)
        results: list[Detections] = []
        chunk = len(images) if len(images) < 2 else (yield from self.max_batch(deadline))
        for start in range(0, len(images), max(chunk, 1)):
            sources = images[start : start + chunk]
            loaded: list[Encoded | ImageError] = []
            for image in sources:
                loaded += [(yield from self._load_or_error(image, deadline))]
            sent = [item for item in loaded if isinstance(item, Encoded)]
            answers: list[Detections] = []
            if sent:
                request = describe_request(
                    self.model,
                    len(sent),
                    score_threshold=score_threshold,
                    iou_threshold=iou_threshold,
                    request_id=request_id,
                )
                answers = yield from self._infer(request, sent, deadline)
            names = answers[0].class_names if answers else (yield from self._any_names(deadline))
            remaining = iter(answers)
            results += [
                next(remaining) if isinstance(item, Encoded) else Detections.failed(str(item), names, source_of(image))
                for image, item in zip(sources, loaded, strict=True)
            ]
        return results

    def spec(self, deadline: _Deadline | None = None, at: int | None = None) -> Flow[DetectorSpec]:
        """Return the spec of the detector that is served now, first of all at the server with the number `at`."""
        config = yield from self._config(DETECTOR.name, deadline or self._deadline(None), at)
        spec = detector_spec(config)
        self._names[names_id(spec.class_names)] = self._names[UNSAID] = spec.class_names
        return spec

    def detector_version(self) -> Flow[str | None]:
        """Return the version of the detector that the servers have; None if they differ or do not say."""
        deadline, versions = self._deadline(None), set[tuple[int, ...]]()
        for number in range(len(self.addresses)):
            with contextlib.suppress(ServerUnavailable, ServerOverloaded, DeadlineExceeded):
                config = yield from self._config(DETECTOR.name, deadline, number)
                versions.add(tuple(config.version_policy.specific.versions))
        served = versions.pop() if len(versions) == 1 else ()
        return str(served[0]) if len(served) == 1 else None

    def max_batch(self, deadline: _Deadline) -> Flow[int]:
        """Return the largest batch that the ensemble takes; ask for it once."""
        if not self._max_batch:
            config = yield from self._config(self.model, deadline)
            if config.max_batch_size < 1:
                raise ContractError(
                    f"the model {self.model!r} must take batches (max_batch_size of at least 1), "
                    f"but has max_batch_size {config.max_batch_size}"
                )
            self._max_batch = config.max_batch_size
        return self._max_batch

    def close(self) -> Flow[None]:
        """Leave nothing behind, here or at the server."""
        if self.memory:
            yield from self.memory.close()

    def is_ready(self) -> Flow[bool]:
        """Return whether a server answers and serves the model now, after a single try at each."""
        request, deadline = service_pb2.ModelReadyRequest(name=self.model), self._deadline(None)
        for number in range(len(self.addresses)):
            try:
                response, _ = yield from self._call("ModelReady", request, deadline, retries=0, at=number)
            except (ServerUnavailable, ServerOverloaded, ModelNotFound, DeadlineExceeded):
                continue
            if response.ready:
                return True
        return False

    def server_version(self) -> Flow[str]:
        """Return Triton's version."""
        request = service_pb2.ServerMetadataRequest()
        response, _ = yield from self._call("ServerMetadata", request, self._deadline(None))
        return str(response.version)

    def statistics(self) -> Flow[Snapshot]:
        """Return the server's counters of every model."""
        if len(self.addresses) > 1:
            raise ContractError(f"counters are one server's, but the client has several ({self.address}); give one")
        request = service_pb2.ModelStatisticsRequest()
        response, _ = yield from self._call("ModelStatistics", request, self._deadline(None))
        return parse_statistics(response)

    def _infer(
        self, request: service_pb2.ModelInferRequest, images: list[Encoded], deadline: _Deadline
    ) -> Flow[list[Detections]]:
        data = [image.data for image in images]
        shared = data if self.memory and self.memory.takes(data) else None
        if shared is None:
            put_images(request, data)
        for pause_s in NAMES_PAUSES_S:
            response, at = yield from self._call("ModelInfer", request, deadline, shared=shared)
            rows = parse_response(response, len(images))
            names = yield from self._class_names(rows, deadline, at)
            if names:
                break
            # The answer came from a version that is gone since, or from one that is not quite there. Ask once more.
            yield Sleep(min(pause_s, self._left_s(deadline)))
        else:
            raise ContractError(
                f"the answers of {self.address} mean other class names than its detector has, time after time; "
                "do servers with different detectors share the address?"
            )
        return [
            Detections(row.boxes_xyxy, row.scores, row.labels, names, row.error, image.source, row.truncated)
            for row, image in zip(rows, images, strict=True)
        ]

    def _class_names(self, rows: list[Rows], deadline: _Deadline, at: int) -> Flow[tuple[str, ...]]:
        """Return the names that the labels of an answer mean; nothing if the detector has other names by now."""
        meant = rows[0].names
        highest = max((int(row.labels.max()) for row in rows if len(row.labels)), default=-1)
        if meant not in self._names or (meant == UNSAID and highest >= len(self._names[meant])):
            yield from self.spec(deadline, at)
        names = self._names.get(meant, ())
        if names and highest >= len(names):
            raise ContractError(
                f"the response has class {highest}, but the detector at {self.addresses[at]} names only {len(names)} "
                "classes"
            )
        return names

    def _any_names(self, deadline: _Deadline) -> Flow[tuple[str, ...]]:
        """Return names for images that were never sent: those asked for last, if there are any."""
        return self._names.get(UNSAID) or (yield from self.spec(deadline)).class_names

    def _config(self, model: str, deadline: _Deadline, at: int | None = None) -> Flow[Any]:
        request = service_pb2.ModelConfigRequest(name=model)
        response, _ = yield from self._call("ModelConfig", request, deadline, model=model, at=at)
        return response.config

    def _call(
        self,
        rpc: str,
        request: Any,
        deadline: _Deadline,
        *,
        model: str | None = None,
        retries: int | None = None,
        at: int | None = None,
        shared: Sequence[bytes] | None = None,
    ) -> Flow[tuple[Any, int]]:
        """Make one call; return the response, and the number of the server that gave it.

        Images that are `shared` go through shared memory, and are not in the request.

        Try again where that is safe and useful, as long as the deadline and the budget allow it: at another server if
        there is one that does not fail, at once; else after a pause.
        """
        retries = self.retries if retries is None else retries
        attempt, deaths, tried = 1, 0, set[int]()
        self.endpoints.earn()
        while True:
            yield from self._check_health()
            number = at if at is not None and at not in tried else self.endpoints.next(tried)
            target = Target(self.addresses[number], model or self.model, deadline.timeout_s)
            left_s = self._left_s(deadline)
            if isinstance(request, service_pb2.ModelInferRequest):
                limit_wait(request, left_s * QUEUE_SHARE)
            try:
                answer = yield from self._ask(Call(rpc, request, left_s, number), deadline, shared)
            except grpc.RpcError as error:
                failure = explain_rpc_error(error, target)
                if isinstance(failure.error, DeadlineExceeded) or failure.backoff_s is not None:
                    self.endpoints.failed(number)
                elif not isinstance(failure.error, RequestCancelled):
                    self.endpoints.answered(number)
                deaths += is_death(failure.error)
                if deaths > MAX_DEATHS:
                    raise died_again(failure.error, target) from error
                tried.add(number)
                pause_s = self._pause(failure, attempt, tried)
                # The reason of the failure says more than the deadline that a pointless wait would run into.
                late = pause_s is not None and pause_s >= deadline.at - self.clock()
                if pause_s is None or late or attempt > retries or not self.endpoints.spend():
                    raise (yield from self._explained(failure.error, number, deadline)) from error
            else:
                self.endpoints.answered(answer[1])
                return answer
            _LOG.warning(
                "try %d of %d of %s failed, the next one follows in %.2f s: %s",
                *(attempt, retries + 1, rpc, pause_s, failure.error),
            )
            if pause_s:
                yield Sleep(pause_s)
            if len(tried) == len(self.addresses):
                tried.clear()
            attempt += 1

    def _pause(self, failure: Failure, attempt: int, tried: set[int]) -> float | None:
        """Return how long to wait before another try, in seconds; None if there is to be none."""
        elsewhere = any(self.endpoints.is_fresh(number, tried) for number in range(len(self.addresses)))
        if elsewhere and (failure.backoff_s is not None or isinstance(failure.error, ServerOverloaded)):
            return 0.0
        if failure.backoff_s is None:
            return None
        growth = float(BACKOFF_FACTOR ** (attempt - 1))
        return min(failure.backoff_s * growth, MAX_BACKOFF_S) * self.jitter()

    def _ask(self, call: Call, deadline: _Deadline, shared: Sequence[bytes] | None) -> Flow[tuple[Any, int]]:
        """Make a call once; if it is to be hedged and takes long, send it to another server too, and take the faster.

        The error is that of the first call if both fail.
        """
        if self.memory and shared:
            left_s = partial(self._left_s, deadline)
            return (yield from self.memory.ask(call, shared, left_s)), call.endpoint
        if self.hedge_after_s is None or call.rpc != "ModelInfer":
            return (yield call), call.endpoint
        first: Pending = yield Start(call)
        started = {call.endpoint: first}
        try:
            yield Wait((first,), self.hedge_after_s)
            other = call.endpoint if first.done() else self.endpoints.next({call.endpoint})
            if other != call.endpoint and self.endpoints.spend():
                started[other] = yield Start(call._replace(timeout_s=self._left_s(deadline), endpoint=other))
            waiting = dict(started)
            while waiting:
                yield Wait(tuple(waiting.values()), self._left_s(deadline) + 1.0)
                for number, pending in list(waiting.items()):
                    if pending.done():
                        del waiting[number]
                        with contextlib.suppress(grpc.RpcError):
                            return pending.result(), number
            if len(started) > 1:
                self.endpoints.failed(other)
            return first.result(), call.endpoint
        finally:
            for pending in started.values():
                pending.cancel()  # does nothing to one that has ended

    def _check_health(self) -> Flow[None]:
        """Ask servers with an open circuit whether they are well again, without waiting for what they say."""
        for number, pending in list(self._checks.items()):
            if pending.done() and self._checks.pop(number, None) is pending:
                healthy = False
                with contextlib.suppress(grpc.RpcError, RequestCancelled):
                    healthy = bool(pending.result().ready)
                self.endpoints.checked(number, healthy)
        for number in self.endpoints.due():
            request = service_pb2.ModelReadyRequest(name=self.model)
            self._checks[number] = yield Start(Call("ModelReady", request, CHECK_TIMEOUT_S, number))

    def _explained(self, error: RequestError, number: int, deadline: _Deadline) -> Flow[RequestError]:
        """Return the error, with the reason of a failed connection if that can be found out."""
        if not isinstance(error, ServerUnavailable):
            return error
        left_s = deadline.at - self.clock()
        address = self.addresses[number]
        explained: RequestError = yield Work(partial(better_explained, error, address, self.credentials, left_s))
        return explained

    def _load(self, image: ImageLike, deadline: _Deadline) -> Flow[Encoded]:
        if isinstance(image, bytes):  # checking them is too little work for another thread
            return encode_image(image)
        compress = self.memory is None  # else no network is in the way

        def check_time() -> None:
            if self.clock() > deadline.at:
                raise DeadlineExceeded(
                    f"{source_of(image)} was not read within {deadline.timeout_s:g} s; allow more time, or copy it to "
                    "a faster disk",
                    grpc.StatusCode.DEADLINE_EXCEEDED,
                )

        encoded: Encoded = yield Work(partial(encode_image, image, check_time, compress=compress))
        return encoded

    def _load_or_error(self, image: ImageLike, deadline: _Deadline) -> Flow[Encoded | ImageError]:
        try:
            return (yield from self._load(image, deadline))
        except ImageError as error:
            return error

    def _deadline(self, timeout_s: float | None) -> _Deadline:
        timeout_s = self.timeout_s if timeout_s is None else check_timeout(timeout_s)
        return _Deadline(self.clock() + timeout_s, timeout_s)

    def _left_s(self, deadline: _Deadline) -> float:
        return max(0.0, deadline.at - self.clock())


class _Deadline(NamedTuple):
    """When a method must end, on the session's clock, and the timeout that this follows from."""

    at: float
    timeout_s: float


def check_timeout(timeout_s: float) -> float:
    """Return `timeout_s` if it is a positive, finite number.

    Raises:
        ContractError: it is something else.
    """
    number = isinstance(timeout_s, (int, float)) and not isinstance(timeout_s, bool)
    if not number or not 0 < timeout_s < math.inf:
        raise ContractError(f"timeout_s must be a positive, finite number of seconds, but got {timeout_s!r}")
    return timeout_s
