"""Build a request for the ensemble, and read its response. Pure functions, no network.

The tensors travel as raw bytes, next to their descriptions (`raw_input_contents`, `raw_output_contents`). Numbers are
little-endian. Each element of a BYTES tensor is its length, 4 bytes little-endian, and then its bytes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

from triptych.contract import (
    BOXES,
    COUNT,
    DETECTION,
    ERROR,
    IMAGE,
    IOU_THRESHOLD,
    LABELS,
    MAX_DETECTIONS,
    SCORE_THRESHOLD,
    SCORES,
    Tensor,
    check_threshold,
)
from triptych.errors import ContractError

_LENGTH = struct.Struct("<I")
_DTYPES = {"FP32": np.dtype("<f4"), "INT32": np.dtype("<i4")}


@dataclass(frozen=True, eq=False)
class Rows:
    """The objects of one image, cut to COUNT rows and copied out of the response.

    Attributes:
        boxes_xyxy: float32 [n, 4].
        scores: float32 [n].
        labels: int32 [n], none below zero.
        error: why the image could not be read, else empty.
    """

    boxes_xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int32]
    error: str


def encode_bytes(elements: Sequence[bytes]) -> bytes:
    r"""Return a BYTES tensor as it travels.

    >>> encode_bytes([b"ab", b""])
    b'\x02\x00\x00\x00ab\x00\x00\x00\x00'
    """
    return b"".join(part for element in elements for part in (_LENGTH.pack(len(element)), element))


def decode_bytes(raw: bytes) -> list[bytes]:
    """Return the elements of a BYTES tensor.

    Raises:
        ContractError: the bytes end within an element.
    """
    elements: list[bytes] = []
    position = 0
    while position < len(raw):
        start = position + _LENGTH.size
        if start > len(raw):
            raise ContractError(f"a BYTES tensor ends within the length of its element {len(elements)}")
        position = start + _LENGTH.unpack_from(raw, position)[0]
        if position > len(raw):
            raise ContractError(
                f"element {len(elements)} of a BYTES tensor must have {position - start} bytes, "
                f"but only {len(raw) - start} are left"
            )
        elements.append(raw[start:position])
    return elements


def build_request(
    model: str,
    images: Sequence[bytes],
    *,
    score_threshold: float | None = None,
    iou_threshold: float | None = None,
    request_id: str = "",
) -> service_pb2.ModelInferRequest:
    """Build one request for `images` (encoded, one row each). A threshold of None leaves the model's default.

    Raises:
        ContractError: a threshold is not a number in 0..1.
    """
    request = service_pb2.ModelInferRequest(model_name=model, id=request_id)
    request.inputs.add(name=IMAGE.name, datatype=IMAGE.dtype, shape=(len(images), *IMAGE.shape))
    request.raw_input_contents.append(encode_bytes(images))
    for name, value in ((SCORE_THRESHOLD, score_threshold), (IOU_THRESHOLD, iou_threshold)):
        if value is not None:
            request.parameters[name].double_param = check_threshold(name, value)
    return request


def parse_response(response: service_pb2.ModelInferResponse, images: int) -> list[Rows]:
    """Return the rows of each image of the request, in its order. `images` is their number.

    Raises:
        ContractError: an output is missing or has another type, shape, length or content than the contract says.
    """
    raws = _raw_outputs(response, images)
    boxes = _array(BOXES, raws, images)
    scores = _array(SCORES, raws, images)
    labels = _array(LABELS, raws, images)
    counts = _array(COUNT, raws, images)[:, 0].tolist()
    errors = decode_bytes(raws[ERROR.name])
    if len(errors) != images:
        raise ContractError(f"the response's {ERROR.name} must have {images} elements, but got {len(errors)}")
    rows = []
    for index, count in enumerate(counts):
        if not 0 <= count <= MAX_DETECTIONS:
            raise ContractError(f"the response's {COUNT.name} must be in 0..{MAX_DETECTIONS}, but got {count}")
        row_labels = labels[index, :count].copy()
        if count and row_labels.min() < 0:
            raise ContractError(f"the response's {LABELS.name} must not be negative, but got {row_labels.min()}")
        error = errors[index].decode("utf-8", "replace")
        rows.append(Rows(boxes[index, :count].copy(), scores[index, :count].copy(), row_labels, error))
    return rows


def _raw_outputs(response: service_pb2.ModelInferResponse, images: int) -> dict[str, bytes]:
    """Return the raw bytes of every output of the contract, by name, after a check of its type and shape."""
    if len(response.outputs) != len(response.raw_output_contents):
        raise ContractError(
            f"the response must carry raw bytes for each of its {len(response.outputs)} outputs, "
            f"but got {len(response.raw_output_contents)}"
        )
    outputs = {
        output.name: (output, raw) for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }
    raws = {}
    for tensor in DETECTION.outputs:
        if tensor.name not in outputs:
            raise ContractError(
                f"the response has no output {tensor.name}, but only {', '.join(outputs) or 'none'}; "
                f"is the model an ensemble of Triptych, such as {DETECTION.name!r}?"
            )
        output, raws[tensor.name] = outputs[tensor.name]
        shape = (images, *tensor.shape)
        if output.datatype != tensor.dtype or tuple(output.shape) != shape:
            raise ContractError(
                f"the response's {tensor.name} must be {tensor.dtype} {list(shape)}, "
                f"but got {output.datatype} {list(output.shape)}"
            )
    return raws


def _array(tensor: Tensor, raws: dict[str, bytes], images: int) -> NDArray[Any]:
    """Return one numeric output, as a read-only view of the response's bytes."""
    raw, dtype = raws[tensor.name], _DTYPES[tensor.dtype]
    shape = (images, *tensor.shape)
    expected = math.prod(shape) * dtype.itemsize
    if len(raw) != expected:
        raise ContractError(f"the response's {tensor.name} must have {expected} bytes, but got {len(raw)}")
    return np.frombuffer(raw, dtype).reshape(shape)
