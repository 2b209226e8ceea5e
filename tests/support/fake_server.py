"""A Triton server that is not one: real gRPC on loopback, answers that a test chooses."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

from triptych.contract import DEFAULT_ROWS, DETECTION, DetectorSpec, names_id
from triptych.wire.protocol import decode_bytes, encode_bytes
from triptych.wire.shared_memory import SHARED_MEMORY

CLASS_NAMES = ("person", "bicycle", "car")


@dataclass
class Fault:
    """A status in place of an answer."""

    code: grpc.StatusCode
    details: str = ""


# As Triton and gRPC were seen to say it.
LOST = Fault(grpc.StatusCode.UNAVAILABLE, "Socket closed")
UNHEALTHY = Fault(grpc.StatusCode.INTERNAL, "in ensemble 'detection', Stub process 'preprocess_0' is not healthy.")
DRAINING = Fault(grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'detection' has no available versions")
FORGOTTEN = Fault(grpc.StatusCode.NOT_FOUND, "Unable to find shared memory region: 'name'")
ELSEWHERE = Fault(grpc.StatusCode.INTERNAL, "Unable to open shared memory region: '/name'")
RESTRICTED = Fault(grpc.StatusCode.UNAVAILABLE, "This protocol is restricted, expecting header 'triptych-key'")
IN_USE = Fault(grpc.StatusCode.INTERNAL, "Cannot unregister shared memory region 'name', it is currently in use.")
UNKNOWN = Fault(grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'detection' is not found")
QUEUE_FULL = Fault(grpc.StatusCode.UNAVAILABLE, "in ensemble 'detection', Exceeds maximum queue size")


def make_response(images: Sequence[bytes], class_names: Sequence[str] = CLASS_NAMES) -> service_pb2.ModelInferResponse:
    """What the ensemble would answer: as many objects as an image has bytes, none for b"bad" but an error.

    Object k of image i has the box (i, k, i + 1, k + 1), the score 1 / (k + 1) and the label k % 3.
    """
    n = len(images)
    boxes = np.zeros((n, DEFAULT_ROWS, 4), "<f4")
    scores = np.zeros((n, DEFAULT_ROWS), "<f4")
    labels = np.zeros((n, DEFAULT_ROWS), "<i4")
    count = np.zeros((n, 1), "<i4")
    truncated = np.zeros((n, 1), "<i4")
    names = np.full((n, 1), names_id(class_names), "<i4")
    errors = [b"cannot be read: \xc3\xa9" if image == b"bad" else b"" for image in images]
    for i, image in enumerate(images):
        count[i] = objects = 0 if errors[i] else min(len(image), DEFAULT_ROWS)
        for k in range(objects):
            boxes[i, k], scores[i, k], labels[i, k] = (i, k, i + 1, k + 1), 1 / (k + 1), k % len(CLASS_NAMES)
    response = service_pb2.ModelInferResponse(model_name=DETECTION.name)
    raws = [*(array.tobytes() for array in (boxes, scores, labels, count, truncated, names)), encode_bytes(errors)]
    for tensor, raw in zip(DETECTION.outputs, raws, strict=True):
        response.outputs.add(
            name=tensor.name,
            datatype=tensor.dtype,
            shape=[n, *(DEFAULT_ROWS if size < 0 else size for size in tensor.shape)],
        )
        response.raw_output_contents.append(raw)
    return response


@dataclass
class FakeServer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]  # gRPC has no types
    """The service; `script` holds what the next inferences do, in order: a Fault, or a change of the response."""

    class_names: tuple[str, ...] = CLASS_NAMES
    max_batch_size: int = 4
    version: int = 1
    delay_s: float = 0.0
    ready: bool = True
    everywhere: Fault | None = None
    script: deque[Fault | Callable[[Any], None]] = field(default_factory=deque)
    requests: list[Any] = field(default_factory=list)
    regions: dict[str, int] = field(default_factory=dict)  # the sizes of what is registered
    registrations: deque[Fault] = field(default_factory=deque)  # what the next ones do
    in_use: set[str] = field(default_factory=set)
    config_requests: list[str] = field(default_factory=list)
    metadata: list[dict[str, Any]] = field(default_factory=list)
    entered: threading.Event = field(default_factory=threading.Event)
    cancelled: threading.Event = field(default_factory=threading.Event)
    stopped: threading.Event = field(default_factory=threading.Event)
    port: int = 0
    tls: grpc.ServerCredentials | None = None

    def start(self) -> FakeServer:
        """Listen, on the same port as before if there was one."""
        self.stopped.clear()
        self._server = grpc.server(ThreadPoolExecutor(8))
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        address = f"127.0.0.1:{self.port}"
        if self.tls:
            self.port = self._server.add_secure_port(address, self.tls)
        else:
            self.port = self._server.add_insecure_port(address)
        self._server.start()
        return self

    def stop(self) -> None:
        """End at once, whatever is under way; delays end too."""
        self.stopped.set()
        self._server.stop(0).wait()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def batches(self) -> list[list[bytes]]:
        """The images of every inference that arrived."""
        return [decode_bytes(request.raw_input_contents[0]) for request in self.requests]

    def ModelInfer(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        if request.inputs[0].parameters:
            self._read_region(request, context)
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        self.entered.set()
        context.add_callback(lambda: None if context.is_active() else self.cancelled.set())
        if self.delay_s:
            self.stopped.wait(self.delay_s)
        step = self.script.popleft() if self.script else self.everywhere
        if isinstance(step, Fault):
            context.abort(step.code, step.details)  # raises
        response = make_response(decode_bytes(request.raw_input_contents[0]), self.class_names)
        if callable(step):
            step(response)
        return response

    def SystemSharedMemoryRegister(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self.metadata.append(dict(context.invocation_metadata()))
        if self.registrations:
            fault = self.registrations.popleft()
            context.abort(fault.code, fault.details)
        assert (SHARED_MEMORY / request.key.lstrip("/")).stat().st_size == request.byte_size
        self.regions[request.name] = request.byte_size
        return service_pb2.SystemSharedMemoryRegisterResponse()

    def SystemSharedMemoryUnregister(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self._fail(context)
        if request.name in self.in_use:
            context.abort(IN_USE.code, IN_USE.details)
        self.regions.pop(request.name, None)  # Triton does not mind either if there is none
        return service_pb2.SystemSharedMemoryUnregisterResponse()

    def _read_region(self, request: Any, context: grpc.ServicerContext) -> None:
        """Put the images of a region into the request, as if they had come in it."""
        parameters = request.inputs[0].parameters
        name, size = parameters["shared_memory_region"].string_param, parameters["shared_memory_byte_size"].int64_param
        if name not in self.regions:
            context.abort(FORGOTTEN.code, FORGOTTEN.details)
        assert not request.raw_input_contents
        assert size <= self.regions[name]
        request.raw_input_contents.append((SHARED_MEMORY / name).read_bytes()[:size])

    def ModelConfig(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self.config_requests.append(request.name)
        self._fail(context)
        response = service_pb2.ModelConfigResponse()
        response.config.name = request.name
        response.config.max_batch_size = self.max_batch_size
        if request.name == "detector":
            response.config.backend = "python"
            response.config.version_policy.specific.versions.append(self.version)
            response.config.input.add(name="pixels", dims=(32, 64, 3))
            response.config.output.add(name="candidates", dims=(300, 7))
            for key, value in DetectorSpec(64, 32, self.class_names).to_parameters().items():
                response.config.parameters[key].string_value = value
        return response

    def ModelReady(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self._fail(context)
        return service_pb2.ModelReadyResponse(ready=self.ready and request.name == DETECTION.name)

    def ServerMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self._fail(context)
        return service_pb2.ServerMetadataResponse(name="triton", version="2.51.0")

    def ModelStatistics(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self._fail(context)
        response = service_pb2.ModelStatisticsResponse()
        model = response.model_stats.add(name=DETECTION.name, inference_count=len(self.requests))
        model.inference_stats.success.count = len(self.requests)
        return response

    def _fail(self, context: grpc.ServicerContext) -> None:
        if self.everywhere:
            context.abort(self.everywhere.code, self.everywhere.details)
