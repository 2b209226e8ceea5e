"""Malformed requests: wrong names, types, shapes, batches, lengths and parameters, for each model of the ensemble."""

from __future__ import annotations

import struct
from collections.abc import Callable
from random import Random
from typing import Any

from tritonclient.grpc import service_pb2

from support.images import JPEG
from triptych.contract import DETECTION, MODELS, Model
from triptych.wire.protocol import build_request, encode_bytes

_SIZES = (-(2**63), -1, 0, 1, 2, 3, 17, 64, 255, 65_536, 2**31, 2**40, 2**63 - 1)
_DATATYPES = ("BOOL", "UINT8", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES", "BF16", "", "nonsense")
_WORDS = ("", "x", "IMAGE", "pixels", "candidates", "geometry", "\0", "ü" * 300, "../../etc", "BOXES")


def malformed(random: Random) -> Any:
    """Return a request for one of the models that is wrong in one to three ways; a few may still be right."""
    model = random.choice((DETECTION, DETECTION, *MODELS))
    request = build_request(DETECTION.name, [JPEG]) if model is DETECTION else _valid(model)
    for _ in range(random.choice((1, 1, 2, 3))):
        random.choice(_WRONGS)(request, random)
    return request


def _valid(model: Model) -> Any:
    request = service_pb2.ModelInferRequest(model_name=model.name)
    for tensor in model.inputs:
        shape = [1, *(64 if side < 0 else side for side in tensor.shape)]
        request.inputs.add(name=tensor.name, datatype=tensor.dtype, shape=shape)
        size = {"UINT8": 1, "INT32": 4, "FP32": 4}.get(tensor.dtype, 0)
        for side in shape:
            size *= side
        request.raw_input_contents.append(encode_bytes([JPEG]) if tensor.dtype == "BYTES" else bytes(size))
    return request


def _input(request: Any, random: Random) -> Any:
    return random.choice(request.inputs) if request.inputs else request.inputs.add()


def _name(request: Any, random: Random) -> None:
    _input(request, random).name = random.choice(_WORDS)


def _datatype(request: Any, random: Random) -> None:
    _input(request, random).datatype = random.choice(_DATATYPES)


def _side(request: Any, random: Random) -> None:
    shape = _input(request, random).shape
    if shape:
        shape[random.randrange(len(shape))] = random.choice(_SIZES)


def _dimensions(request: Any, random: Random) -> None:
    shape = _input(request, random).shape
    shape[:] = [random.choice(_SIZES[2:6]) for _ in range(random.choice((0, 1, 2, 3, 5, 40)))]


def _batch(request: Any, random: Random) -> None:
    """A batch that fits its shape, of none, of more than the limit, or of far more."""
    count = random.choice((0, 15, 17, 64, 1000))
    del request.inputs[:]
    del request.raw_input_contents[:]
    request.inputs.add(name="IMAGE", datatype="BYTES", shape=(count, 1))
    request.raw_input_contents.append(encode_bytes([random.choice((b"", b"x", JPEG))] * count))


def _contents(request: Any, random: Random) -> None:
    lengths = (0, 1, 3, 4, 5, len(JPEG), 2**16, 2**31, 2**32 - 1)
    raw = random.choice(
        (
            b"",
            b"\0",
            bytes(4),
            encode_bytes([b""]),
            encode_bytes([b"", b"", b""]),
            struct.pack("<I", random.choice(lengths)) + JPEG,
            encode_bytes([JPEG])[: random.randrange(len(JPEG))],
            encode_bytes([JPEG, JPEG]),
            random.randbytes(random.choice((1, 7, 100, 5000))),
            bytes(3_000_000),
        )
    )
    if request.raw_input_contents:
        request.raw_input_contents[0] = raw
    else:
        request.raw_input_contents.append(raw)


def _empty(request: Any, random: Random) -> None:
    field = random.choice(("inputs", "raw_input_contents", "model_name"))
    request.ClearField(field)


def _twice(request: Any, random: Random) -> None:
    copy = _input(request, random)
    request.inputs.add().CopyFrom(copy)
    if random.random() < 0.5:
        request.raw_input_contents.append(b"")


def _typed(request: Any, random: Random) -> None:
    """Values next to the raw bytes, or in their place."""
    _input(request, random).contents.bytes_contents.extend([JPEG] * random.choice((0, 1, 2)))
    if random.random() < 0.5:
        del request.raw_input_contents[:]


def _model(request: Any, random: Random) -> None:
    request.model_name = random.choice((*_WORDS, "preprocess", "detector", "postprocess"))


def _version(request: Any, random: Random) -> None:
    request.model_version = random.choice(("0", "-1", "999", "x", "1.5", "9" * 40))


def _output(request: Any, random: Random) -> None:
    request.outputs.add(name=random.choice(_WORDS))


def _parameter(request: Any, random: Random) -> None:
    key = random.choice(("score_threshold", "iou_threshold", "sequence_id", "priority", "timeout", "unknown"))
    field, value = random.choice(
        (
            ("double_param", random.choice((-1.0, 2.0, float("nan"), float("inf"), 1e308))),
            ("string_param", random.choice(_WORDS)),
            ("bool_param", True),
            ("int64_param", random.choice(_SIZES)),
        )
    )
    setattr(request.parameters[key], field, value)


def _shared_memory(request: Any, random: Random) -> None:
    tensor = _input(request, random)
    tensor.parameters["shared_memory_region"].string_param = random.choice(_WORDS)
    tensor.parameters["shared_memory_byte_size"].int64_param = random.choice(_SIZES)
    tensor.parameters["shared_memory_offset"].int64_param = random.choice(_SIZES)


_Wrong = Callable[[Any, Random], None]
_WRONGS: tuple[_Wrong, ...] = (
    *(_name, _datatype, _side, _side, _dimensions, _batch, _contents, _contents, _empty),
    *(_twice, _typed, _model, _version, _output, _parameter, _parameter, _shared_memory),
)
