"""The deployed stages of a server, each asked alone over gRPC."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2, service_pb2_grpc

from triptych.contract import (
    BOXES,
    CANDIDATE_FIELDS,
    CANDIDATES,
    COUNT,
    DETECTOR,
    GEOMETRY,
    IMAGE,
    IOU_THRESHOLD,
    LABELS,
    PIXELS,
    POSTPROCESS,
    PREPROCESS,
    SCORE_THRESHOLD,
    SCORES,
    DetectorSpec,
    Model,
    Tensor,
)
from triptych.errors import BuildError
from triptych.wire.channel import open_channel
from triptych.wire.credentials import LOCAL, Credentials
from triptych.wire.protocol import encode_bytes
from triptych_build.verify.metrics import Floats, Predictions
from triptych_build.verify.reference import Pixels, Stages

_DTYPES: dict[str, np.dtype[Any]] = {"UINT8": np.dtype("u1"), "FP32": np.dtype("<f4"), "INT32": np.dtype("<i4")}

_Input = tuple[bytes, tuple[int, ...]]
"""A tensor's bytes, and its shape with the batch."""


@contextmanager
def deployed_stages(
    address: str, spec: DetectorSpec, score_threshold: float, timeout_s: float, credentials: Credentials = LOCAL
) -> Iterator[Stages]:
    """Yield the served models as stages; a call raises a BuildError if its model does not answer.

    Args:
        address: the server's gRPC address, host:port.
        spec: of the deployed detector.
        score_threshold: of postprocess, 0..1.
        timeout_s: for each call.
        credentials: how to connect to the server.
    """
    with open_channel(grpc, address, credentials) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)

        def preprocess(encoded: bytes) -> tuple[Pixels, Floats]:
            image = encode_bytes([encoded]), (1, 1)
            pixels, geometry = _ask(stub, PREPROCESS, {IMAGE: image}, (PIXELS, GEOMETRY), timeout_s)
            return pixels, geometry

        def detector(pixels: Pixels) -> Floats:
            (candidates,) = _ask(stub, DETECTOR, {PIXELS: _batch_of_one(pixels)}, (CANDIDATES,), timeout_s)
            return candidates[:, : len(CANDIDATE_FIELDS)]  # without the names' number

        def postprocess(candidates: Floats, geometry: Floats) -> Predictions:
            inputs = {CANDIDATES: _batch_of_one(candidates), GEOMETRY: _batch_of_one(geometry)}
            thresholds = {SCORE_THRESHOLD: score_threshold, IOU_THRESHOLD: spec.iou_threshold}
            outputs = (COUNT, BOXES, SCORES, LABELS)
            count, *columns = _ask(stub, POSTPROCESS, inputs, outputs, timeout_s, thresholds)
            return Predictions(*(column[: count[0]] for column in columns))

        yield Stages(preprocess, detector, postprocess)


def _batch_of_one(value: NDArray[Any]) -> _Input:
    """Return a tensor of one image as a batch of one."""
    return value.tobytes(), (1, *value.shape)


def _ask(
    stub: Any,
    model: Model,
    inputs: Mapping[Tensor, _Input],
    outputs: Sequence[Tensor],
    timeout_s: float,
    parameters: Mapping[str, float] | None = None,
) -> list[NDArray[Any]]:
    """Return these outputs of one model for one image, without the batch."""
    request = service_pb2.ModelInferRequest(model_name=model.name)
    for tensor, (raw, shape) in inputs.items():
        request.inputs.add(name=tensor.name, datatype=tensor.dtype, shape=shape)
        request.raw_input_contents.append(raw)
    for name, value in (parameters or {}).items():
        request.parameters[name].double_param = value
    for tensor in outputs:
        request.outputs.add(name=tensor.name)
    try:
        response = stub.ModelInfer(request, timeout=timeout_s)
    except grpc.RpcError as error:
        raise BuildError(
            f"the model {model.name} does not answer alone ({error.details()}); see the server's log"
        ) from error
    answers = {
        output.name: np.frombuffer(raw, _DTYPES[output.datatype]).reshape(tuple(output.shape)[1:])
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }
    return [answers[tensor.name] for tensor in outputs]
