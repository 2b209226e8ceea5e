"""The gate of a deployed detector: accuracy, determinism and latency against the FP32 source, through the server.

    python build/verify.py ADAPTED_FP32.onnx --data LABELS --repository model_repository --precision int8

What is measured is the ensemble that clients call, over gRPC. The baseline is the adapted FP32 ONNX between the plain
reference of preprocess and postprocess, in this process. Where accuracy fails, each deployed stage is put alone into
the reference pipeline: the one that costs the most has drifted.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import grpc
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from tritonclient.grpc import service_pb2, service_pb2_grpc

import adapt
from labels import Dataset, read_dataset
from metrics import Accuracy, Found, accuracy, as_truth
from reference import Floats, Pixels, Stages, reference_stages
from triptych import DetectionClient, Detections, __version__
from triptych._channel import open_channel
from triptych._protocol import encode_bytes
from triptych.boxes import iou_xyxy
from triptych.console import run
from triptych.contract import (
    BOXES,
    CANDIDATES,
    COUNT,
    DETECTION,
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
from triptych.files import write_aside
from triptych.server import Ports, TritonServer

SCORE_FLOOR = 0.001
"""Accuracy is measured from this score on: the whole precision-recall curve counts, not the part in daily use."""

TOP_CLASSES = 5
TOP_CLASS_BOXES = 50
"""A class is held to its own limit if it is among the 5 with the most ground truth and has at least 50 boxes."""

CHANCE_POINTS = 12.0
"""A class's limit grows by this over the root of its boxes: what two standard deviations of chance move its AP.

Measured with the demo detector in int8 on parts of 160 held-out boards: 1.29 points at 21 boxes, 0.77 at 41.
"""

LEAST_BASELINE = 0.05
"""mAP50 of the source below which labels and detector do not belong together: nothing could be lost any more."""

IN_FLIGHT = 4
REPEATED = 8
"""Images that are sent twice."""

WARM_UP = 5
LATENCY_REQUESTS = 100
LATENCY_TIME_S = 6.0
"""One request at a time, after a warm-up: so many, or as many as this time allows, but no fewer than 20."""

TIMEOUT_S = 60.0

_DTYPES: dict[str, np.dtype[Any]] = {"UINT8": np.dtype("u1"), "FP32": np.dtype("<f4"), "INT32": np.dtype("<i4")}

NEXT_PRECISION = {"int8": "fp16", "fp16": "bf16 or fp32", "bf16": "fp32"}

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Gate:
    """What a deployed detector must hold.

    Attributes:
        map_points: most that mAP50-95 may lose against the source, in points of 100.
        class_points: most that the AP of a top class may lose, likewise, beyond chance (see `CHANCE_POINTS`).
        agreement: without labels, least mAP50 against the source's confident detections; and of a batch against its
            images alone. 0..1.
        p95_ms: most that the 95th percentile of the client's latency may be; None has no limit.
    """

    map_points: float = 0.5
    class_points: float = 1.0
    agreement: float = 0.95
    p95_ms: float | None = None

    @classmethod
    def for_precision(cls, precision: str) -> Gate:
        """The limits of a precision: int8 may lose twice as much."""
        return cls(map_points=1.0) if precision == "int8" else cls()


@dataclass(frozen=True)
class Check:
    """One measured figure and its limit.

    Attributes:
        name: what was measured, with its unit.
        measured: the figure.
        limit: what it is held against; None is not held against anything.
        passed: whether it holds.
        figure: what of `Accuracy` it is about: a field or a class name; empty for what is no accuracy.
    """

    name: str
    measured: float
    limit: float | None
    passed: bool
    figure: str = ""


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


@dataclass(frozen=True)
class Report:
    """What the gate found.

    Attributes:
        passed: whether every check holds.
        verdict: the outcome in words; where a stage has drifted, which and what to do.
        drifted: that stage's name, or None.
        precision: what the deployed detector was built for.
        gate: the limits.
        checks: every figure with its limit.
        truth: what accuracy was measured against: "labels" or "source".
        images: number of images.
        source: accuracy of the FP32 source; None without labels, as it is the truth itself then.
        deployed: accuracy of the deployed ensemble.
        latency_ms: percentiles of the client's latency, one request at a time.
        stages: what each stage costs; empty where no check of accuracy fails.
        date: ISO 8601, UTC.
        versions: of what took part, by name.
    """

    passed: bool
    verdict: str
    drifted: str | None
    precision: str
    gate: Gate
    checks: tuple[Check, ...]
    truth: str
    images: int
    source: Accuracy | None
    deployed: Accuracy
    latency_ms: dict[str, float]
    stages: tuple[Drift, ...]
    date: str
    versions: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return asdict(self)

    def to_markdown(self) -> str:
        """As a page to read."""
        lines = [f"# Verification: {'passed' if self.passed else 'refused'}", "", self.verdict, ""]
        lines += ["| check | measured | limit | |", "| --- | ---: | ---: | --- |"]
        lines += [f"| {' | '.join(_cells(check))} |" for check in self.checks]
        if self.stages:
            lines += ["", "## What each deployed stage costs alone", "", "| stage | points lost | evidence |"]
            lines += ["| --- | ---: | --- |"]
            lines += [f"| {drift.stage} | {drift.loss_points:.2f} | {drift.evidence} |" for drift in self.stages]
        lines += ["", "## Accuracy", "", "| | source | deployed |", "| --- | ---: | ---: |"]
        lines += [f"| {name} | {before} | {after} |" for name, before, after in self._accuracy_rows()]
        against = "the labels" if self.truth == "labels" else "what the source finds with confidence"
        served = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        latency = ", ".join(f"{name} {value:.1f} ms" for name, value in self.latency_ms.items())
        lines += ["", f"Measured against {against} on {self.images} images. Latency, one request at a time: {latency}."]
        return "\n".join([*lines, f"{self.date}, {self.precision}, {served}.", ""])

    def _accuracy_rows(self) -> Iterator[tuple[str, str, str]]:
        """Name, source and deployed, in points."""
        titles = {"map50_95": "mAP50-95", "map50": "mAP50", "precision": "precision", "recall": "recall"}
        for figure in (*titles, *self.deployed.class_ap):
            before = f"{_points(self.source, figure):.2f}" if self.source else ""
            yield titles.get(figure, f"AP50-95 of {figure}"), before, f"{_points(self.deployed, figure):.2f}"

    def raise_if_refused(self) -> None:
        """Raise what went wrong.

        Raises:
            BuildError: a check failed; the message is the verdict.
        """
        if not self.passed:
            raise BuildError(self.verdict)


def _cells(check: Check) -> tuple[str, str, str, str]:
    if check.limit is None:
        return check.name, _shown(check.measured), "", ""
    return check.name, _shown(check.measured), _shown(check.limit), "ok" if check.passed else "FAILED"


def _shown(value: float) -> str:
    return f"{round(value, 2) + 0.0:g}"


# --- The deployed stages, each for itself


@contextmanager
def deployed_stages(address: str, spec: DetectorSpec) -> Iterator[Stages]:
    """The served models, each asked for itself."""
    with open_channel(grpc, address, None) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)

        def preprocess(encoded: bytes) -> tuple[Pixels, Floats]:
            answer = _ask(stub, PREPROCESS, {IMAGE: encode_bytes([encoded])}, {IMAGE: (1, 1)}, (PIXELS, GEOMETRY))
            return answer[PIXELS.name], answer[GEOMETRY.name]

        def detector(pixels: Pixels) -> Floats:
            return _ask(stub, DETECTOR, {PIXELS: pixels.tobytes()}, {PIXELS: (1, *pixels.shape)}, (CANDIDATES,))[
                CANDIDATES.name
            ]

        def postprocess(candidates: Floats, geometry: Floats) -> Found:
            answer = _ask(
                stub,
                POSTPROCESS,
                {CANDIDATES: candidates.tobytes(), GEOMETRY: geometry.tobytes()},
                {CANDIDATES: (1, *candidates.shape), GEOMETRY: (1, *geometry.shape)},
                (BOXES, SCORES, LABELS, COUNT),
                {SCORE_THRESHOLD: SCORE_FLOOR, IOU_THRESHOLD: spec.iou_threshold},
            )
            count = int(answer[COUNT.name][0])
            return Found(*(answer[tensor.name][:count] for tensor in (BOXES, SCORES, LABELS)))

        yield Stages(preprocess, detector, postprocess)


def _ask(
    stub: Any,
    model: Model,
    raws: Mapping[Tensor, bytes],
    shapes: Mapping[Tensor, tuple[int, ...]],
    outputs: Sequence[Tensor],
    parameters: Mapping[str, float] | None = None,
) -> dict[str, NDArray[Any]]:
    """The named outputs of one model for one image, without the batch."""
    request = service_pb2.ModelInferRequest(model_name=model.name)
    for tensor, raw in raws.items():
        request.inputs.add(name=tensor.name, datatype=tensor.dtype, shape=shapes[tensor])
        request.raw_input_contents.append(raw)
    for name, value in (parameters or {}).items():
        request.parameters[name].double_param = value
    for tensor in outputs:
        request.outputs.add(name=tensor.name)
    try:
        response = stub.ModelInfer(request, timeout=TIMEOUT_S)
    except grpc.RpcError as error:
        raise BuildError(
            f"the model {model.name} does not answer alone ({error.details()}); see the server's log"
        ) from error
    return {
        output.name: np.frombuffer(raw, _DTYPES[output.datatype]).reshape(tuple(output.shape)[1:])
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }


# --- The gate


def verify(address: str, source: Path, dataset: Dataset, gate: Gate, *, precision: str = "fp32") -> Report:
    """Measure the ensemble that a server runs against the FP32 source.

    Args:
        address: the server's gRPC address, host:port.
        source: the adapted FP32 ONNX.
        dataset: images, with or without labels.
        gate: the limits.
        precision: what the deployed detector was built for; the verdict names the next one up.

    Raises:
        BuildError: the source is not adapted, it and the server hold different detectors, an image cannot be read,
            or the source finds nothing that could be compared.
        RequestError: the server does not answer.
    """
    record = adapt.read_adapted(adapt.read_onnx(source))
    if record is None:
        raise BuildError(
            f"{source} is not adapted to the contract; run `python build/adapt.py {source} --out ADAPTED.onnx`"
        )
    spec = record.spec
    reference = reference_stages(source, spec, SCORE_FLOOR)
    with DetectionClient(address, timeout_s=TIMEOUT_S) as client:
        _check_same_detector(spec, client.spec(), source)
        server = client.server_version()

        def deployed(image: Path) -> Found:
            return _found(client.detect(image, score_threshold=SCORE_FLOOR, iou_threshold=spec.iou_threshold))

        def baseline(image: Path) -> tuple[Floats, Found]:
            pixels, geometry = reference.preprocess(_read(image))
            candidates = reference.detector(pixels)
            return candidates, reference.postprocess(candidates, geometry)

        candidates, expected = zip(*_each(baseline, dataset.images, "FP32 source", workers=1), strict=True)
        found = _each(deployed, dataset.images, "deployed ensemble")
        truth = dataset.truth or _confident(expected, spec)
        before = accuracy(truth, expected)
        if before.map50 < LEAST_BASELINE:
            raise BuildError(
                f"the source itself reaches mAP50 {before.map50:.3f} on these labels; they belong to another detector, "
                "or the source was adapted with the wrong --order, --scale or --placement"
            )
        after = accuracy(truth, found)
        checks = _accuracy_checks(gate, before, after, truth) if dataset.truth else [_agreement_check(gate, after)]
        checks += _repeat_checks(client, dataset.images[:REPEATED], spec, gate)
        latencies_ms = _latencies_ms(client, dataset.images)
    p95_ms = float(np.percentile(latencies_ms, 95))
    checks.append(Check("p95 latency (ms)", p95_ms, gate.p95_ms, gate.p95_ms is None or p95_ms <= gate.p95_ms))
    stages: tuple[Drift, ...] = ()
    drifted = None
    figure = next((check.figure for check in checks if check.figure and not check.passed), None)
    if figure:

        def loss(some: Sequence[Found]) -> float:
            return _points(before, figure) - _points(accuracy(truth, some), figure)

        with deployed_stages(address, spec) as served:
            stages = _drifts(reference, served, dataset.images, candidates, spec, loss)
        drifted = _drifted(stages, loss(found))
    return Report(
        passed=all(check.passed for check in checks),
        verdict=_verdict(checks, stages, drifted, precision),
        drifted=drifted,
        precision=precision,
        gate=gate,
        checks=tuple(checks),
        truth="labels" if dataset.truth else "source",
        images=len(dataset.images),
        source=before if dataset.truth else None,
        deployed=after,
        latency_ms={f"p{rank}": float(np.percentile(latencies_ms, rank)) for rank in (50, 95, 99)},
        stages=stages,
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        versions={"triptych": __version__, "triton": server}
        | {name: version(name) for name in ("onnxruntime", "faster-coco-eval")},
    )


def _check_same_detector(source: DetectorSpec, served: DetectorSpec, path: Path) -> None:
    ours, theirs = ((spec.width, spec.height, spec.class_names) for spec in (source, served))
    if ours != theirs:
        raise BuildError(
            f"the server's detector takes {theirs[0]}x{theirs[1]} and has {len(theirs[2])} classes, {path.name} takes "
            f"{ours[0]}x{ours[1]} and has {len(ours[2])}, or other names; give the ONNX that the server's came from"
        )


def _each(work: Callable[[T], R], items: Sequence[T], what: str, workers: int = IN_FLIGHT) -> list[R]:
    """The results of `work` in the order of `items`, with progress on a terminal."""
    console = Console(stderr=True)
    with ThreadPoolExecutor(workers) as pool:
        results = pool.map(work, items)
        return list(track(results, what, len(items), console=console, disable=not console.is_terminal))


def _read(image: Path) -> bytes:
    try:
        return image.read_bytes()
    except OSError as error:
        raise BuildError(f"the validation image {image} cannot be read: {error.strerror or error}") from error


def _found(detections: Detections) -> Found:
    if detections.error:
        raise BuildError(f"the server cannot read the validation image {detections.source}: {detections.error}")
    return Found(detections.boxes_xyxy, detections.scores, detections.labels)


def _confident(found: Sequence[Found], spec: DetectorSpec) -> dict[str, Any]:
    truth = as_truth(found, spec.class_names, spec.score_threshold)
    if not truth["annotations"]:
        raise BuildError(
            f"without labels, what the source finds is the truth, but it finds nothing that scores "
            f"{spec.score_threshold:g} in {len(found)} images; give images that show what it detects"
        )
    return truth


def _accuracy_checks(gate: Gate, before: Accuracy, after: Accuracy, truth: dict[str, Any]) -> list[Check]:
    names = {category["id"]: category["name"] for category in truth["categories"]}
    counts = Counter(names[row["category_id"]] for row in truth["annotations"] if not row["iscrowd"])
    top = {name: count for name, count in counts.most_common(TOP_CLASSES) if count >= TOP_CLASS_BOXES}
    limits = {"map50_95": gate.map_points}
    limits |= {name: gate.class_points + CHANCE_POINTS / math.sqrt(count) for name, count in top.items()}
    checks = []
    for figure, limit in limits.items():
        drop = _points(before, figure) - _points(after, figure)
        name = f"AP drop of {figure} (points, {top[figure]} boxes)" if figure in top else "mAP50-95 drop (points)"
        checks.append(Check(name, drop, limit, drop <= limit, figure))
    return checks


def _agreement_check(gate: Gate, after: Accuracy) -> Check:
    passed = after.map50 >= gate.agreement
    return Check("agreement with the source (mAP50)", after.map50, gate.agreement, passed, "map50")


def _points(measured: Accuracy, figure: str) -> float:
    """A figure of `Accuracy`, a field or a class, in points of 100."""
    return 100 * (measured.class_ap[figure] if figure in measured.class_ap else getattr(measured, figure))


def _repeat_checks(client: DetectionClient, images: Sequence[Path], spec: DetectorSpec, gate: Gate) -> list[Check]:
    """The same request twice gives the same bits; a batch finds what its images alone give.

    A GPU may choose other kernels for another batch size, so a batch is held to agreement and not to the bit.
    """
    alone, again = ([_found(client.detect(image)) for image in images] for _ in range(2))
    batch, batch_again = ([_found(found) for found in client.detect_batch(images)] for _ in range(2))
    pairs = [*zip(alone, again, strict=True), *zip(batch, batch_again, strict=True)]
    changed = sum(not all(map(np.array_equal, one, other)) for one, other in pairs)
    checks = [Check("images that change when sent again", changed, 0, changed == 0)]
    if any(len(found.scores) for found in alone):
        agreement = accuracy(_confident(alone, spec), batch).map50
        name = "agreement of a batch with its images alone (mAP50)"
        checks.append(Check(name, agreement, gate.agreement, agreement >= gate.agreement))
    return checks


def _latencies_ms(client: DetectionClient, images: Sequence[Path]) -> list[float]:
    encoded = [_read(image) for image in images[:LATENCY_REQUESTS]]
    for number in range(WARM_UP):
        client.detect(encoded[number % len(encoded)])
    latencies_ms: list[float] = []
    deadline = time.monotonic() + LATENCY_TIME_S
    while len(latencies_ms) < LATENCY_REQUESTS and (len(latencies_ms) < 20 or time.monotonic() < deadline):
        started = time.perf_counter()
        client.detect(encoded[len(latencies_ms) % len(encoded)])
        latencies_ms.append(1000 * (time.perf_counter() - started))
    return latencies_ms


# --- Which stage has drifted


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


def _drifts(
    reference: Stages,
    served: Stages,
    images: Sequence[Path],
    candidates: Sequence[Floats],
    spec: DetectorSpec,
    loss: Callable[[Sequence[Found]], float],
) -> tuple[Drift, ...]:
    """What each deployed stage costs alone, with evidence; `loss` gives the points that detections lose."""

    def compare(number: int) -> Compared:
        return _compare(reference, served, _read(images[number]), candidates[number], spec.score_threshold)

    rows = _each(compare, range(len(images)), "stage by stage")
    evidence = {
        PREPROCESS.name: _pixels_evidence(rows),
        DETECTOR.name: _candidates_evidence(rows),
        POSTPROCESS.name: _boxes_evidence(rows),
    }
    return tuple(Drift(stage, loss([row.found[stage] for row in rows]), told) for stage, told in evidence.items())


def _compare(reference: Stages, served: Stages, encoded: bytes, candidates: Floats, score_threshold: float) -> Compared:
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


def _drifted(stages: Sequence[Drift], loss_points: float) -> str | None:
    """The stage that alone costs the most, if that is a good part of what is lost in all."""
    worst = max(stages, key=lambda drift: drift.loss_points)
    return worst.stage if worst.loss_points > max(loss_points / 4, 0) else None


def _verdict(checks: Sequence[Check], stages: Sequence[Drift], drifted: str | None, precision: str) -> str:
    failed = [check for check in checks if not check.passed]
    if not failed:
        return "passed: the deployed detector holds every limit of the gate"
    told = "; ".join(
        f"{check.name} is {_shown(check.measured)}, the limit {_shown(check.limit or 0)}" for check in failed[:2]
    )
    told += f"; and {len(failed) - 2} more" if len(failed) > 2 else ""
    for drift in stages:
        if drift.stage == drifted:
            return (
                f"refused: {told}. The stage that drifted is {drift.stage}, which alone loses {drift.loss_points:.1f} "
                f"points: {drift.evidence}. {_way_back(drift.stage, precision)}"
            )
    if stages:
        told += (
            f". No stage alone explains it, so look at how {DETECTION.name} joins them; "
            f"restore model_repository/{DETECTION.name}"
        )
    return f"refused: {told}"


def _way_back(stage: str, precision: str) -> str:
    if stage == PREPROCESS.name:
        return f"Restore model_repository/{stage} or its options (order, placement, pad value)"
    if stage == POSTPROCESS.name:
        return f"Restore model_repository/{stage}"
    if precision not in NEXT_PRECISION:
        return "Publish it again from the adapted ONNX"
    higher = f"the next precision up, {NEXT_PRECISION[precision]}"
    if precision == "int8":
        return f"Calibrate with more images like those it will see, exclude layers (`--exclude`), or take {higher}"
    return f"Exclude layers (`--exclude`), or take {higher}"


# --- Command line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this step."""
    options = parser.add_argument_group("verify", "the gate of the deployed detector against the FP32 source")
    options.add_argument(
        "--data", type=Path, metavar="LABELS", help="COCO JSON, YOLO data.yaml or folder, or a folder of images alone"
    )
    options.add_argument("--images", type=Path, metavar="DIR", help="images of a COCO JSON; default: beside it")
    options.add_argument(
        "--max-map-drop", type=float, metavar="POINTS", help="most that mAP50-95 may lose (0.5; int8: 1.0)"
    )
    options.add_argument(
        "--max-class-drop", type=float, metavar="POINTS", help="the same for each top class, beyond chance (1.0)"
    )
    options.add_argument(
        "--min-agreement", type=float, metavar="0..1", help="least mAP50 against the source, without labels (0.95)"
    )
    options.add_argument("--p95-ms", type=float, metavar="MS", help="most that the p95 latency may be; default: any")


def gate_from(arguments: argparse.Namespace, precision: str) -> Gate:
    """The gate of a precision, with the limits that the options of this step set."""
    given = {
        "map_points": arguments.max_map_drop,
        "class_points": arguments.max_class_drop,
        "agreement": arguments.min_agreement,
        "p95_ms": arguments.p95_ms,
    }
    return replace(Gate.for_precision(precision), **{name: value for name, value in given.items() if value is not None})


def print_report(report: Report, console: Console) -> None:
    """Show a report on a terminal."""
    table = Table("check", "measured", "limit", "", title="Verification", title_justify="left")
    for column in table.columns[1:3]:
        column.justify = "right"
    for check in report.checks:
        table.add_row(*_cells(check), style=None if check.passed else "bold red")
    console.print(table)
    if report.stages:
        costs = Table(
            "stage", "points lost", "evidence", title="What each deployed stage costs alone", title_justify="left"
        )
        costs.columns[1].justify = "right"
        for drift in report.stages:
            costs.add_row(drift.stage, f"{drift.loss_points:.2f}", drift.evidence)
        console.print(costs)


def write_report(report: Report, directory: Path) -> None:
    """Write `report.json` and `report.md` into a directory, which is made if need be."""
    with write_aside(directory / "report.json") as aside:
        aside.write_text(json.dumps(report.to_dict(), indent=2) + "\n", encoding="utf-8")
    with write_aside(directory / "report.md") as aside:
        aside.write_text(report.to_markdown(), encoding="utf-8")


@contextmanager
def _server(arguments: argparse.Namespace) -> Iterator[str]:
    """The address of the server to verify; one is started for a model repository."""
    if arguments.address:
        yield arguments.address
        return
    with (
        tempfile.TemporaryDirectory(prefix="triptych-verify-") as scratch,
        TritonServer(arguments.repository, ports=Ports.free(), log_path=Path(scratch) / "log") as server,
    ):
        yield server.grpc_address


def main() -> None:
    """Run this step alone."""
    parser = argparse.ArgumentParser(prog="python build/verify.py", description=__doc__.split("\n", 1)[0])
    parser.add_argument("source", type=Path, help="the adapted FP32 ONNX that the deployed detector comes from")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--address", metavar="HOST:PORT", help="a running server")
    where.add_argument("--repository", type=Path, metavar="DIR", help="a model repository, served for the duration")
    parser.add_argument(
        "--precision", choices=("fp32", "fp16", "bf16", "int8"), default="fp32", help="of the engine (fp32)"
    )
    parser.add_argument("--report", type=Path, metavar="DIR", help="write report.json and report.md there")
    add_arguments(parser)
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("name the images to verify with: --data LABELS")
    record = adapt.read_adapted(adapt.read_onnx(arguments.source))
    names = record.spec.class_names if record else ()
    dataset = read_dataset(arguments.data, names, arguments.images)
    with _server(arguments) as address:
        gate = gate_from(arguments, arguments.precision)
        report = verify(address, arguments.source, dataset, gate, precision=arguments.precision)
    console = Console(highlight=False)
    print_report(report, console)
    if arguments.report:
        write_report(report, arguments.report)
    report.raise_if_refused()
    console.print(report.verdict)


if __name__ == "__main__":
    run(main)
