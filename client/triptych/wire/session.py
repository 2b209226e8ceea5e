"""All that a client does, except waiting: a conversation with the server as generators, without input or output.

Each generator yields effects (make this call, sleep so long, do this blocking work), receives their results and returns
the result of a client's method. The two clients differ only in how they carry the effects out.
"""

from __future__ import annotations

import logging
import math
import os
import random
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeVar

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

from triptych.contract import DETECTOR, IOU_THRESHOLD, SCORE_THRESHOLD, DetectorSpec, check_threshold
from triptych.detections import Detections
from triptych.errors import (
    ContractError,
    DeadlineExceeded,
    ImageError,
    ModelNotFound,
    ServerOverloaded,
    ServerUnavailable,
)
from triptych.model_config import detector_spec
from triptych.vision.inputs import Encoded, ImageLike, encode_image, source_of
from triptych.wire.protocol import Rows, build_request, parse_response
from triptych.wire.statistics import Snapshot, parse_statistics
from triptych.wire.status import Target, explain_rpc_error

BACKOFF_FACTOR = 3
"""How much longer each pause is than the one before."""

MAX_BACKOFF_S = 2.0

_LOG = logging.getLogger(__name__)


class Call(NamedTuple):
    """Call `rpc` of the stub. The answer is the response, or a grpc.RpcError thrown into the generator."""

    rpc: str
    request: Any
    timeout_s: float


class Sleep(NamedTuple):
    """Wait."""

    seconds: float


class Work(NamedTuple):
    """Call a function that reads a file or computes for milliseconds. The answer is its result, or its error."""

    function: Callable[[], Any]


Effect = Call | Sleep | Work
T = TypeVar("T")
Flow = Generator[Effect, Any, T]


@dataclass
class Session:
    """What one client knows about its server.

    Attributes:
        address: host:port.
        model: the ensemble.
        timeout_s: the default deadline of a method.
        retries: how many tries follow the first.
        clock: seconds that only grow.
        jitter: a factor around 1 for each pause, so that many clients do not come back at the same moment.
    """

    address: str
    model: str
    timeout_s: float
    retries: int
    clock: Callable[[], float] = time.monotonic
    jitter: Callable[[], float] = field(default=partial(random.uniform, 0.75, 1.25))
    _spec: DetectorSpec | None = field(default=None, init=False)
    _max_batch: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        check_timeout(self.timeout_s)
        if isinstance(self.retries, bool) or not isinstance(self.retries, int) or self.retries < 0:
            raise ContractError(f"retries must be an integer of at least 0, but got {self.retries!r}")

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
        encoded = yield from _load(image)
        request = build_request(
            self.model,
            [encoded.data],
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
                loaded += [(yield from _load_or_error(image))]
            sent = [item for item in loaded if isinstance(item, Encoded)]
            answers: Iterator[Detections] = iter(())
            if sent:
                data = [item.data for item in sent]
                request = build_request(
                    self.model,
                    data,
                    score_threshold=score_threshold,
                    iou_threshold=iou_threshold,
                    request_id=request_id,
                )
                answers = iter((yield from self._infer(request, sent, deadline)))
            names = (yield from self.spec(deadline)).class_names
            results += [
                next(answers) if isinstance(item, Encoded) else Detections.failed(str(item), names, source_of(image))
                for image, item in zip(sources, loaded, strict=True)
            ]
        return results

    def spec(self, deadline: _Deadline | None = None) -> Flow[DetectorSpec]:
        """Return the detector's spec; ask for it once."""
        if self._spec is None:
            config = yield from self._config(DETECTOR.name, deadline or self._deadline(None))
            self._spec = detector_spec(config)
        return self._spec

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

    def is_ready(self) -> Flow[bool]:
        """Return whether the server answers and serves the model now, after a single try."""
        request = service_pb2.ModelReadyRequest(name=self.model)
        try:
            response = yield from self._call("ModelReady", request, self._deadline(None), retries=0)
        except (ServerUnavailable, ServerOverloaded, ModelNotFound, DeadlineExceeded):
            return False
        return bool(response.ready)

    def server_version(self) -> Flow[str]:
        """Return Triton's version."""
        request = service_pb2.ServerMetadataRequest()
        response = yield from self._call("ServerMetadata", request, self._deadline(None))
        return str(response.version)

    def statistics(self) -> Flow[Snapshot]:
        """Return the server's counters of every model."""
        response = yield from self._call("ModelStatistics", service_pb2.ModelStatisticsRequest(), self._deadline(None))
        return parse_statistics(response)

    def _infer(
        self, request: service_pb2.ModelInferRequest, images: list[Encoded], deadline: _Deadline
    ) -> Flow[list[Detections]]:
        response = yield from self._call("ModelInfer", request, deadline)
        rows = parse_response(response, len(images))
        names = yield from self._class_names(rows, deadline)
        return [
            Detections(row.boxes_xyxy, row.scores, row.labels, names, row.error, image.source)
            for row, image in zip(rows, images, strict=True)
        ]

    def _class_names(self, rows: list[Rows], deadline: _Deadline) -> Flow[tuple[str, ...]]:
        names = (yield from self.spec(deadline)).class_names
        highest = max((int(row.labels.max()) for row in rows if len(row.labels)), default=-1)
        if highest >= len(names):
            # A detector with more classes may have been published since.
            self._spec = None
            names = (yield from self.spec(deadline)).class_names
        if highest >= len(names):
            raise ContractError(
                f"the response has class {highest}, but the detector at {self.address} names only {len(names)} classes"
            )
        return names

    def _config(self, model: str, deadline: _Deadline) -> Flow[Any]:
        request = service_pb2.ModelConfigRequest(name=model)
        return (yield from self._call("ModelConfig", request, deadline, model=model)).config

    def _call(
        self, rpc: str, request: Any, deadline: _Deadline, *, model: str | None = None, retries: int | None = None
    ) -> Flow[Any]:
        """Make one call. Try again where that is safe and useful, as long as the deadline allows it."""
        target = Target(self.address, model or self.model, deadline.timeout_s)
        retries = self.retries if retries is None else retries
        attempt = 1
        while True:
            try:
                return (yield Call(rpc, request, max(0.0, deadline.at - self.clock())))
            except grpc.RpcError as error:
                failure = explain_rpc_error(error, target)
                if failure.backoff_s is None or attempt > retries:
                    raise failure.error from error
                pause_s = min(failure.backoff_s * BACKOFF_FACTOR ** (attempt - 1), MAX_BACKOFF_S) * self.jitter()
                # The reason of the failure says more than the deadline that a pointless wait would run into.
                if pause_s >= deadline.at - self.clock():
                    raise failure.error from error
            _LOG.warning(
                "try %d of %d of %s failed, the next one follows in %.2f s: %s",
                *(attempt, retries + 1, rpc, pause_s, failure.error),
            )
            yield Sleep(pause_s)
            attempt += 1

    def _deadline(self, timeout_s: float | None) -> _Deadline:
        timeout_s = self.timeout_s if timeout_s is None else check_timeout(timeout_s)
        return _Deadline(self.clock() + timeout_s, timeout_s)


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


def _load(image: ImageLike) -> Flow[Encoded]:
    # Checking bytes is too little work for another thread.
    return encode_image(image) if isinstance(image, bytes) else (yield Work(partial(encode_image, image)))


def _load_or_error(image: ImageLike) -> Flow[Encoded | ImageError]:
    try:
        return (yield from _load(image))
    except ImageError as error:
        return error
