"""The gate of a deployed detector: accuracy, determinism and latency against the FP32 source, through the server.

It measures the ensemble that clients call, over gRPC, against the adapted FP32 ONNX on ONNX Runtime in this process,
between a plain reference of preprocess and postprocess. Where accuracy fails, each deployed stage is put alone into
that reference, and the stage that costs the most has drifted. If that is the detector, its graph in plain floats tells
whether the graph lost it, or the runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timezone
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from rich.console import Console
from rich.progress import track

from triptych import DetectionClient, Detections, __version__
from triptych.contract import DETECTOR, DetectorSpec
from triptych.errors import BuildError
from triptych.machine import cpu_model, nvidia_gpus
from triptych.wire.credentials import LOCAL, Credentials
from triptych_build.adapt.onnx_file import read_adapted_file
from triptych_build.verify.deployed import deployed_stages
from triptych_build.verify.drift import Compared, Drift, compare_stages, costs, drifted_stage
from triptych_build.verify.figures import Yardstick
from triptych_build.verify.latency import TIMEOUT_S, measure_latency
from triptych_build.verify.limits import (
    Check,
    Gate,
    batch_check,
    calibrated_check,
    cut_check,
    defaults_check,
    images_check,
    latency_check,
    loss_checks,
    repeat_check,
)
from triptych_build.verify.metrics import Floats, Predictions, accuracy, as_truth
from triptych_build.verify.reference import Stages, plain_detector, reference_stages
from triptych_build.verify.report import Report
from triptych_build.verify.shared import shared_images
from triptych_build.verify.truth import Dataset, read_image

SCORE_FLOOR = 0.001
"""Accuracy is measured from this score on: the whole precision-recall curve counts, not the part in daily use."""

LEAST_BASELINE = 0.05
"""mAP50 of the source below which labels and detector do not belong together: nothing is left to lose."""

IN_FLIGHT = 4
REPEATED = 8
"""Images that are sent twice."""

T = TypeVar("T")
R = TypeVar("R")


def verify(
    address: str,
    source: Path,
    dataset: Dataset,
    gate: Gate,
    *,
    credentials: Credentials = LOCAL,
    precision: str = "fp32",
    graph: Path | None = None,
    calibration: Sequence[Path] = (),
) -> Report:
    """Measure the ensemble that a server runs against the FP32 source.

    Args:
        address: the server's gRPC address, host:port.
        source: the adapted FP32 ONNX.
        dataset: images, with or without labels.
        gate: the limits.
        credentials: how to connect to the server.
        precision: what the deployed detector was built for; the verdict names the next one up.
        graph: the ONNX that the server's detector runs or was built from, if it is at hand.
        calibration: the images that its ranges came from.

    Raises:
        BuildError: the source is not adapted, it and the server hold different detectors, an image cannot be read,
            or the source finds nothing that could be compared.
        RequestError: the server does not answer.
    """
    _, record = read_adapted_file(source)
    spec = record.spec
    reference = reference_stages(source, spec, SCORE_FLOOR)
    with DetectionClient(address, timeout_s=TIMEOUT_S, credentials=credentials) as client:
        served_spec = client.spec()
        _check_same_detector(spec, served_spec, source)
        server = client.server_version()
        candidates, expected = _source_predictions(reference, dataset)
        yardstick = Yardstick(dataset.truth or _confident(expected, spec), expected, spec.score_threshold)
        before = accuracy(yardstick.truth, expected)
        _check_baseline(before.map50)
        detected = _deployed_detections(client, dataset, spec)
        predictions = [_predictions(detections) for detections in detected]
        losses = yardstick.losses(predictions)
        has_labels = dataset.truth is not None
        files = [sha256(read_image(image)).digest() for image in dataset.images]
        checks = [images_check(yardstick.truth, files), defaults_check(spec, served_spec)]
        checks += loss_checks(gate, losses, yardstick.truth, spec.score_threshold, has_labels=has_labels)
        checks += [calibrated_check(shared_images(dataset.images, calibration))] if calibration else []
        checks.append(_cut_check(client, dataset, detected))
        checks += _repeat_checks(client, dataset.images[:REPEATED], spec, gate)
    latency = measure_latency(address, dataset.images, credentials, has_limit=gate.p95_ms is not None)
    stages: tuple[Drift, ...] = ()
    drifted, graph_loss = None, None
    figure = next((check.figure for check in checks if check.figure and check.outcome == "refused"), None)
    if figure:

        def loss(some: Sequence[Predictions]) -> float:
            return yardstick.loss(some, figure)

        stages = _stage_costs(address, credentials, reference, dataset, spec, candidates, loss)
        drifted = drifted_stage(stages, float(losses[figure][0]))
        if graph and drifted == DETECTOR.name:
            graph_loss = _graph_loss(graph, reference, dataset, loss)
    return Report(
        stages=stages,
        drifted=drifted,
        graph_loss=graph_loss,
        precision=precision,
        gate=gate,
        checks=(*checks, latency_check(gate, latency)),
        truth="labels" if dataset.truth else "source",
        images=len(dataset.images),
        class_names=spec.class_names,
        source=before if dataset.truth else None,
        deployed=accuracy(yardstick.truth, predictions),
        latency=latency,
        machine=_machine(),
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        versions={"triptych": __version__, "triton": server}
        | {name: version(name) for name in ("onnxruntime", "faster-coco-eval")},
    )


def _machine() -> str:
    """Return what calculates here, for the verdict."""
    return ", ".join([cpu_model(), *(gpu.name for gpu in nvidia_gpus())])


def _graph_loss(
    graph: Path, reference: Stages, dataset: Dataset, loss: Callable[[Sequence[Predictions]], float]
) -> float | None:
    """Return what the graph itself loses in plain floats; None where it cannot be calculated so."""
    try:
        plain = replace(reference, detector=plain_detector(graph))
    except BuildError:
        return None
    return loss(_source_predictions(plain, dataset)[1])


def _check_same_detector(source: DetectorSpec, served: DetectorSpec, path: Path) -> None:
    ours, theirs = ((spec.width, spec.height, len(spec.class_names)) for spec in (source, served))
    if ours != theirs or source.class_names != served.class_names:
        names = ", with other names" if ours[2] == theirs[2] and source.class_names != served.class_names else ""
        raise BuildError(
            f"the server's detector takes {theirs[0]}x{theirs[1]} and has {theirs[2]} classes, {path.name} takes "
            f"{ours[0]}x{ours[1]} and has {ours[2]}{names}; give the ONNX that the server's came from"
        )


def _check_baseline(map50: float) -> None:
    if map50 < LEAST_BASELINE:
        raise BuildError(
            f"the source itself reaches mAP50 {map50:.3f} on these labels; either they belong to another "
            "detector, or the source was adapted with the wrong --order, --scale, --placement or --boxes"
        )


def _source_predictions(reference: Stages, dataset: Dataset) -> tuple[list[Floats], list[Predictions]]:
    """Return the source's candidates float32 [K, 6] and its predictions for each image."""

    def run(image: Path) -> tuple[Floats, Predictions]:
        pixels, geometry = reference.preprocess(read_image(image))
        candidates = reference.detector(pixels)
        return candidates, reference.postprocess(candidates, geometry)

    rows = _tracked_map(run, dataset.images, "FP32 source", workers=1)
    return [candidates for candidates, _ in rows], [predictions for _, predictions in rows]


def _deployed_detections(client: DetectionClient, dataset: Dataset, spec: DetectorSpec) -> list[Detections]:
    def run(image: Path) -> Detections:
        return client.detect(image, score_threshold=SCORE_FLOOR, iou_threshold=spec.iou_threshold)

    return _tracked_map(run, dataset.images, "deployed ensemble")


def _cut_check(client: DetectionClient, dataset: Dataset, at_floor: Sequence[Detections]) -> Check:
    """Count the images that are cut off at the detector's own thresholds: only one that was at the floor can be."""
    suspects = [image for image, detections in zip(dataset.images, at_floor, strict=True) if detections.truncated]
    cut = _tracked_map(lambda image: bool(client.detect(image).truncated), suspects, "crowded images")
    return cut_check(sum(cut), len(dataset.images))


def _stage_costs(
    address: str,
    credentials: Credentials,
    reference: Stages,
    dataset: Dataset,
    spec: DetectorSpec,
    candidates: Sequence[Floats],
    loss: Callable[[Sequence[Predictions]], float],
) -> tuple[Drift, ...]:
    with deployed_stages(address, spec, SCORE_FLOOR, TIMEOUT_S, credentials) as served:

        def compared(number: int) -> Compared:
            encoded = read_image(dataset.images[number])
            return compare_stages(reference, served, encoded, candidates[number], spec.score_threshold)

        return costs(_tracked_map(compared, range(len(dataset.images)), "stage by stage"), loss)


def _tracked_map(work: Callable[[T], R], items: Sequence[T], what: str, workers: int = IN_FLIGHT) -> list[R]:
    """Return the results of `work` in the order of `items`, with progress on a terminal."""
    console = Console(stderr=True)
    with ThreadPoolExecutor(workers) as pool:
        results = pool.map(work, items)
        return list(track(results, what, len(items), console=console, disable=not console.is_terminal))


def _predictions(detections: Detections) -> Predictions:
    if detections.error:
        raise BuildError(f"the server cannot read the validation image {detections.source}: {detections.error}")
    return Predictions(detections.boxes_xyxy, detections.scores, detections.labels)


def _confident(predictions: Sequence[Predictions], spec: DetectorSpec) -> dict[str, Any]:
    truth = as_truth(predictions, spec.class_names, spec.score_threshold)
    if not truth["annotations"]:
        raise BuildError(
            f"without labels, the source's own detections are the truth, but none scores {spec.score_threshold:g} "
            f"in {len(predictions)} images; give images that show what it detects"
        )
    return truth


def _repeat_checks(client: DetectionClient, images: Sequence[Path], spec: DetectorSpec, gate: Gate) -> list[Check]:
    """Check that the same request twice gives the same bits, and that a batch finds what its images find alone."""
    alone, alone_again = ([_predictions(client.detect(image)) for image in images] for _ in range(2))
    batch, batch_again = ([_predictions(one) for one in client.detect_batch(images)] for _ in range(2))
    pairs = [*zip(alone, alone_again, strict=True), *zip(batch, batch_again, strict=True)]
    checks = [repeat_check(sum(not all(map(np.array_equal, one, other)) for one, other in pairs))]
    if any(len(predictions.scores) for predictions in alone):
        checks.append(batch_check(gate, accuracy(as_truth(alone, spec.class_names, 0), batch).map50_95))
    return checks
