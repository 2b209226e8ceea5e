"""Build a request for the ensemble, and read its response. Pure functions, no network.

The tensors travel as raw bytes, next to their descriptions (`raw_input_contents`, `raw_output_contents`). Numbers are
little-endian. Each element of a BYTES tensor is its length, 4 bytes little-endian, and then its bytes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

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
    NAMES,
    SCORE_THRESHOLD,
    SCORES,
    TRUNCATED,
    Tensor,
    Truncated,
    check_threshold,
)
from triptych.errors import ContractError

_LENGTH = struct.Struct("<I")
_DTYPES = {"FP32": np.dtype("<f4"), "INT32": np.dtype("<i4")}
_NEWER = (TRUNCATED, NAMES)
"""What servers of older releases do not say."""
_COMPLETE = Truncated(0)


class _Output(NamedTuple):
    shape: tuple[int, ...]
    raw: bytes


@dataclass(frozen=True, eq=False)
class Rows:
    """The objects of one image, cut to COUNT rows and copied out of the response.

    Attributes:
        boxes_xyxy: float32 [n, 4].
        scores: float32 [n].
        labels: int32 [n], none below zero.
        error: why the image could not be read, else empty.
        truncated: what cut the answer off; 0 where it is complete, or the server is too old to say.
        names: the `names_id` of the class names that the labels mean; 0 where the server is too old to say.
    """

    boxes_xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int32]
    error: str
    truncated: Truncated = _COMPLETE
    names: int = 0


def encode_bytes(elements: Sequence[bytes]) -> bytes:
    r"""Return a BYTES tensor as it travels.

    >>> encode_bytes([b"ab", b""])
    b'\x02\x00\x00\x00ab\x00\x00\x00\x00'
    """
    return b"".join(encoded_parts(elements))


def encoded_parts(elements: Sequence[bytes]) -> Iterator[bytes]:
    """Yield a BYTES tensor as it travels, in pieces, none of which is copied."""
    for element in elements:
        yield _LENGTH.pack(len(element))
        yield element


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
    request = describe_request(
        model, len(images), score_threshold=score_threshold, iou_threshold=iou_threshold, request_id=request_id
    )
    put_images(request, images)
    return request


def describe_request(
    model: str,
    images: int,
    *,
    score_threshold: float | None = None,
    iou_threshold: float | None = None,
    request_id: str = "",
) -> service_pb2.ModelInferRequest:
    """Build a request for so many images without the images themselves; else as `build_request` does."""
    request = service_pb2.ModelInferRequest(model_name=model, id=request_id)
    request.inputs.add(name=IMAGE.name, datatype=IMAGE.dtype, shape=(images, *IMAGE.shape))
    for name, value in ((SCORE_THRESHOLD, score_threshold), (IOU_THRESHOLD, iou_threshold)):
        if value is not None:
            request.parameters[name].double_param = check_threshold(name, value)
    return request


def put_images(request: service_pb2.ModelInferRequest, images: Sequence[bytes]) -> None:
    """Put images into a request that was described."""
    request.raw_input_contents.append(encode_bytes(images))


def place_images(request: service_pb2.ModelInferRequest, region: str, size: int) -> None:
    """Say that the images are the first `size` bytes of a region of shared memory that the server knows."""
    parameters = request.inputs[0].parameters
    parameters["shared_memory_region"].string_param = region
    parameters["shared_memory_byte_size"].int64_param = size


def limit_wait(request: service_pb2.ModelInferRequest, seconds: float) -> None:
    """Say how long the request may wait in the queue of a stage; Triton refuses it then, and works on it no more."""
    request.parameters["timeout"].int64_param = max(1, int(seconds * 1e6))  # 0 would be no limit


def parse_response(response: service_pb2.ModelInferResponse, images: int) -> list[Rows]:
    """Return the rows of each image of the request, in its order. `images` is their number.

    How many rows the server's tensors have, it says in their shapes.

    Raises:
        ContractError: an output is missing or has another type, shape, length or content than the contract says.
    """
    outputs = _outputs(response, images)
    boxes = _array(BOXES, outputs)
    scores = _array(SCORES, outputs)
    labels = _array(LABELS, outputs)
    most = boxes.shape[1]
    if not scores.shape[1] == labels.shape[1] == most:
        raise ContractError(
            f"the response has {most} rows of {BOXES.name}, but {scores.shape[1]} of {SCORES.name} "
            f"and {labels.shape[1]} of {LABELS.name}"
        )
    counts = _array(COUNT, outputs)[:, 0].tolist()
    truncated, names = (
        _array(tensor, outputs)[:, 0].tolist() if tensor.name in outputs else [0] * images for tensor in _NEWER
    )
    errors = decode_bytes(outputs[ERROR.name].raw)
    if len(errors) != images:
        raise ContractError(f"the response's {ERROR.name} must have {images} elements, but got {len(errors)}")
    rows = []
    for index, count in enumerate(counts):
        if not 0 <= count <= most:
            raise ContractError(f"the response's {COUNT.name} must be in 0..{most}, but got {count}")
        row_labels = labels[index, :count].copy()
        if count and row_labels.min() < 0:
            raise ContractError(f"the response's {LABELS.name} must not be negative, but got {row_labels.min()}")
        error = errors[index].decode("utf-8", "replace")
        cut = Truncated(truncated[index] & (Truncated.CANDIDATES | Truncated.ROWS))
        box_rows, score_rows = boxes[index, :count].copy(), scores[index, :count].copy()
        rows.append(Rows(box_rows, score_rows, row_labels, error, cut, names[index]))
    return rows


def _outputs(response: service_pb2.ModelInferResponse, images: int) -> dict[str, _Output]:
    """Return every output of the contract, by name, after a check of its type and shape."""
    if len(response.outputs) != len(response.raw_output_contents):
        raise ContractError(
            f"the response must carry raw bytes for each of its {len(response.outputs)} outputs, "
            f"but got {len(response.raw_output_contents)}"
        )
    given = {
        output.name: (output, raw) for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }
    outputs = {}
    for tensor in DETECTION.outputs:
        if tensor.name not in given:
            if tensor in _NEWER:
                continue
            raise ContractError(
                f"the response has no output {tensor.name}, but only {', '.join(given) or 'none'}; "
                f"is the model an ensemble of Triptych, such as {DETECTION.name!r}?"
            )
        output, raw = given[tensor.name]
        shape, expected = tuple(output.shape), (images, *tensor.shape)
        fits = len(shape) == len(expected) and all(b in (-1, a) for a, b in zip(shape, expected, strict=True))
        if output.datatype != tensor.dtype or not fits:
            raise ContractError(
                f"the response's {tensor.name} must be {tensor.dtype} {list(expected)}, "
                f"but got {output.datatype} {list(shape)}"
            )
        outputs[tensor.name] = _Output(shape, raw)
    return outputs


def _array(tensor: Tensor, outputs: dict[str, _Output]) -> NDArray[Any]:
    """Return one numeric output, as a read-only view of the response's bytes."""
    (shape, raw), dtype = outputs[tensor.name], _DTYPES[tensor.dtype]
    expected = math.prod(shape) * dtype.itemsize
    if min(shape) < 0 or len(raw) != expected:
        raise ContractError(f"the response's {tensor.name} must have {expected} bytes, but got {len(raw)}")
    return np.frombuffer(raw, dtype).reshape(shape)
