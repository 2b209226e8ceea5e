"""Which deployed stage has drifted: each is put alone into the reference pipeline, and what that costs is measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2, service_pb2_grpc

from triptych.contract import (
    BOXES,
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
from triptych.vision.boxes import iou_xyxy
from triptych.wire.channel import open_channel
from triptych.wire.protocol import encode_bytes
from triptych_build.verify.metrics import Found
from triptych_build.verify.reference import Floats, Pixels, Stages

_DTYPES: dict[str, np.dtype[Any]] = {"UINT8": np.dtype("u1"), "FP32": np.dtype("<f4"), "INT32": np.dtype("<i4")}

_Input = tuple[bytes, tuple[int, ...]]
"""What is sent of a tensor, and its shape with the batch."""


@dataclass(frozen=True)
class Drift:
    """What one deployed stage costs in the reference pipeline.

    Attributes:
        stage: its model's name.
        loss_points: what accuracy loses, in the points of the gate.
        evidence: how its own output differs, in words.
    """

    stage: str
    loss_points: float
    evidence: str


class Compared(NamedTuple):
    """One image through each deployed stage alone: what is found then, and how the stage's output differs.

    Attributes:
        found: detections with one deployed stage each, by its name.
        levels: mean absolute difference of the pixels, in levels of 0..255.
        levels_swapped: the same with red and blue of the deployed pixels swapped.
        is_moved: whether the geometry differs.
        confident: the source's candidates at the detector's own threshold.
        matched: those that the deployed detector has too: IoU 0.5 or more, same class.
        score_change: sum over `matched` of the deployed score minus the source's.
        boxes: boxes of the reference postprocess.
        missing: those that the deployed one lacks.
        corner_px: the largest difference between corners of those that both have.
    """

    found: dict[str, Found]
    levels: float
    levels_swapped: float
    is_moved: bool
    confident: int
    matched: int
    score_change: float
    boxes: int
    missing: int
    corner_px: float


# --- The deployed stages


@contextmanager
def deployed_stages(address: str, spec: DetectorSpec, score_threshold: float, timeout_s: float) -> Iterator[Stages]:
    """The served models, each asked for itself; a call raises a BuildError if its model does not answer.

    Args:
        address: the server's gRPC address, host:port.
        spec: of the deployed detector.
        score_threshold: of postprocess, 0..1.
        timeout_s: for each call.
    """
    with open_channel(grpc, address, None) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)

        def preprocess(encoded: bytes) -> tuple[Pixels, Floats]:
            image = encode_bytes([encoded]), (1, 1)
            pixels, geometry = _ask(stub, PREPROCESS, {IMAGE: image}, (PIXELS, GEOMETRY), timeout_s)
            return pixels, geometry

        def detector(pixels: Pixels) -> Floats:
            (candidates,) = _ask(stub, DETECTOR, {PIXELS: _alone(pixels)}, (CANDIDATES,), timeout_s)
            return candidates

        def postprocess(candidates: Floats, geometry: Floats) -> Found:
            inputs = {CANDIDATES: _alone(candidates), GEOMETRY: _alone(geometry)}
            thresholds = {SCORE_THRESHOLD: score_threshold, IOU_THRESHOLD: spec.iou_threshold}
            outputs = (COUNT, BOXES, SCORES, LABELS)
            count, *rows = _ask(stub, POSTPROCESS, inputs, outputs, timeout_s, thresholds)
            return Found(*(each[: count[0]] for each in rows))

        yield Stages(preprocess, detector, postprocess)


def _alone(value: NDArray[Any]) -> _Input:
    """A tensor of one image as a batch of one."""
    return value.tobytes(), (1, *value.shape)


def _ask(
    stub: Any,
    model: Model,
    inputs: Mapping[Tensor, _Input],
    outputs: Sequence[Tensor],
    timeout_s: float,
    parameters: Mapping[str, float] | None = None,
) -> list[NDArray[Any]]:
    """These outputs of one model for one image, without the batch."""
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


# --- One image


def compare(reference: Stages, served: Stages, encoded: bytes, candidates: Floats, score_threshold: float) -> Compared:
    """Send one image through each deployed stage alone.

    Args:
        reference: the pipeline of the source.
        served: the deployed stages.
        encoded: the image file's bytes.
        candidates: float32 [K, 6], what the source gives for it.
        score_threshold: candidates of the source count as confident from here on, 0..1.

    Raises:
        BuildError: the image cannot be read, or a deployed model does not answer.
    """
    pixels, geometry = reference.preprocess(encoded)
    served_pixels, served_geometry = served.preprocess(encoded)
    served_candidates = served.detector(pixels)
    expected, boxes = reference.postprocess(candidates, geometry), served.postprocess(candidates, geometry)
    confident = candidates[candidates[:, 4] >= score_threshold]
    change = _score_change(confident, served_candidates)
    missing, corner_px = _corners(expected, boxes)
    levels = pixels.astype(np.int16)
    return Compared(
        found={
            PREPROCESS.name: reference.postprocess(reference.detector(served_pixels), served_geometry),
            DETECTOR.name: reference.postprocess(served_candidates, geometry),
            POSTPROCESS.name: boxes,
        },
        levels=float(np.abs(levels - served_pixels).mean()),
        levels_swapped=float(np.abs(levels - served_pixels[..., ::-1]).mean()),
        is_moved=not np.allclose(geometry, served_geometry, rtol=1e-4, atol=0.01),
        confident=len(confident),
        matched=len(change),
        score_change=float(change.sum()),
        boxes=len(expected.scores),
        missing=missing,
        corner_px=corner_px,
    )


def _score_change(confident: Floats, served: Floats) -> Floats:
    """Of each confident candidate that is found again, the score of the nearest one now minus its own."""
    overlaps = iou_xyxy(confident[:, :4], served[:, :4]) * (confident[:, 5:6] == served[:, 5])
    again = overlaps.max(1, initial=0) >= 0.5
    change: Floats = served[overlaps[again].argmax(1), 4] - confident[again, 4]
    return change


def _corners(expected: Found, boxes: Found) -> tuple[int, float]:
    """How many boxes are missing, and how far the others are: scores pass through postprocess, so they tell which."""
    same = (expected.scores[:, None] == boxes.scores) & (expected.labels[:, None] == boxes.labels)
    there = same.any(1)
    if not there.any():
        return len(there), 0.0
    distance = np.abs(expected.boxes_xyxy[:, None] - boxes.boxes_xyxy).max(2)
    nearest = np.where(same, distance, np.inf).min(1)
    return int((~there).sum()), float(nearest[there].max())


# --- All images


def costs(rows: Sequence[Compared], loss: Callable[[Sequence[Found]], float]) -> tuple[Drift, ...]:
    """What each deployed stage costs alone, with evidence.

    Args:
        rows: of each image.
        loss: gives the points that accuracy loses with such detections, one for each image.
    """
    evidence = {
        PREPROCESS.name: _pixels_evidence(rows),
        DETECTOR.name: _candidates_evidence(rows),
        POSTPROCESS.name: _boxes_evidence(rows),
    }
    return tuple(Drift(stage, loss([row.found[stage] for row in rows]), told) for stage, told in evidence.items())


def drifted_stage(stages: Sequence[Drift], loss_points: float) -> str | None:
    """The stage that alone costs the most, if that is more than a quarter of what is lost in all."""
    worst = max(stages, key=lambda drift: drift.loss_points)
    return worst.stage if worst.loss_points > max(loss_points / 4, 0) else None


def _pixels_evidence(rows: Sequence[Compared]) -> str:
    levels, swapped = (float(np.mean([getattr(row, name) for row in rows])) for name in ("levels", "levels_swapped"))
    told = f"pixels differ by {levels:.2f} levels of 255 on average"
    if levels > 1 and swapped < levels / 2:
        told += f", by {swapped:.2f} with red and blue swapped: the channels are in the other order"
    if any(row.is_moved for row in rows):
        told += "; the image lies elsewhere in the letterbox"
    return told


def _candidates_evidence(rows: Sequence[Compared]) -> str:
    confident, matched = (sum(getattr(row, name) for row in rows) for name in ("confident", "matched"))
    change = sum(row.score_change for row in rows) / max(matched, 1)
    return (
        f"of the same pixels it finds {matched} of the source's {confident} confident candidates again "
        f"({matched / max(confident, 1):.1%}), their scores {round(change, 3) + 0.0:+.3f} on average"
    )


def _boxes_evidence(rows: Sequence[Compared]) -> str:
    boxes, missing = sum(row.boxes for row in rows), sum(row.missing for row in rows)
    return (
        f"of the same candidates it gives boxes whose corners lie up to {max(row.corner_px for row in rows):.1f} px "
        f"elsewhere, and lacks {missing} of {boxes}"
    )
