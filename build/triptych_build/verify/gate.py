"""The gate of a deployed detector: accuracy, determinism and latency against the FP32 source, through the server.

    python build/verify.py ADAPTED_FP32.onnx --data LABELS --repository model_repository --precision int8

What is measured is the ensemble that clients call, over gRPC. It is held against the adapted FP32 ONNX on ONNX Runtime
in this process, between a plain reference of preprocess and postprocess. Where accuracy fails, each deployed stage is
put alone into that reference, and the one that costs the most has drifted.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from rich.console import Console
from rich.progress import track

from triptych import DetectionClient, Detections, __version__
from triptych.cli.console import run
from triptych.contract import DetectorSpec
from triptych.errors import BuildError
from triptych.serving.server import Ports, TritonServer
from triptych_build.adapt import adapter as adapt
from triptych_build.verify.datasets import Dataset, read_dataset, read_image
from triptych_build.verify.drift import Compared, Drift, compare, costs, deployed_stages, drifted_stage
from triptych_build.verify.metrics import Accuracy, Found, accuracy, as_truth
from triptych_build.verify.reference import Floats, reference_stages
from triptych_build.verify.report import Check, Gate, Report, points, print_report, verdict, write_report

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

T = TypeVar("T")
R = TypeVar("R")


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
    _, record = adapt.read_adapted_file(source)
    spec = record.spec
    reference = reference_stages(source, spec, SCORE_FLOOR)
    with DetectionClient(address, timeout_s=TIMEOUT_S) as client:
        _check_same_detector(spec, client.spec(), source)
        server = client.server_version()

        def deployed(image: Path) -> Found:
            return _found(client.detect(image, score_threshold=SCORE_FLOOR, iou_threshold=spec.iou_threshold))

        def baseline(image: Path) -> tuple[Floats, Found]:
            pixels, geometry = reference.preprocess(read_image(image))
            candidates = reference.detector(pixels)
            return candidates, reference.postprocess(candidates, geometry)

        candidates, expected = zip(*_each(baseline, dataset.images, "FP32 source", workers=1), strict=True)
        found = _each(deployed, dataset.images, "deployed ensemble")
        truth = dataset.truth or _confident(expected, spec)
        before = accuracy(truth, expected)
        if before.map50 < LEAST_BASELINE:
            raise BuildError(
                f"the source itself reaches mAP50 {before.map50:.3f} on these labels; either they belong to another "
                "detector, or the source was adapted with the wrong --order, --scale or --placement"
            )
        after = accuracy(truth, found)
        checks = _accuracy_checks(gate, before, after, truth) if dataset.truth else [_agreement_check(gate, after)]
        checks += _repeat_checks(client, dataset.images[:REPEATED], spec, gate)
        latencies_ms = _latencies_ms(client, dataset.images)
    latency_ms = {f"p{rank}": float(np.percentile(latencies_ms, rank)) for rank in (50, 95, 99)}
    checks.append(_latency_check(gate, latency_ms["p95"]))
    stages: tuple[Drift, ...] = ()
    drifted = None
    figure = next((check.figure for check in checks if check.figure and not check.passed), None)
    if figure:

        def loss(some: Sequence[Found]) -> float:
            return points(before, figure) - points(accuracy(truth, some), figure)

        with deployed_stages(address, spec, SCORE_FLOOR, TIMEOUT_S) as served:

            def compared(number: int) -> Compared:
                encoded = read_image(dataset.images[number])
                return compare(reference, served, encoded, candidates[number], spec.score_threshold)

            stages = costs(_each(compared, range(len(dataset.images)), "stage by stage"), loss)
        drifted = drifted_stage(stages, loss(found))
    return Report(
        passed=all(check.passed for check in checks),
        verdict=verdict(checks, stages, drifted, precision),
        drifted=drifted,
        precision=precision,
        gate=gate,
        checks=tuple(checks),
        truth="labels" if dataset.truth else "source",
        images=len(dataset.images),
        source=before if dataset.truth else None,
        deployed=after,
        latency_ms=latency_ms,
        stages=stages,
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        versions={"triptych": __version__, "triton": server}
        | {name: version(name) for name in ("onnxruntime", "faster-coco-eval")},
    )


def _check_same_detector(source: DetectorSpec, served: DetectorSpec, path: Path) -> None:
    ours, theirs = ((spec.width, spec.height, len(spec.class_names)) for spec in (source, served))
    if ours != theirs or source.class_names != served.class_names:
        others = ", with other names" if ours[2] == theirs[2] and source.class_names != served.class_names else ""
        raise BuildError(
            f"the server's detector takes {theirs[0]}x{theirs[1]} and has {theirs[2]} classes, {path.name} takes "
            f"{ours[0]}x{ours[1]} and has {ours[2]}{others}; give the ONNX that the server's came from"
        )


def _each(work: Callable[[T], R], items: Sequence[T], what: str, workers: int = IN_FLIGHT) -> list[R]:
    """The results of `work` in the order of `items`, with progress on a terminal."""
    console = Console(stderr=True)
    with ThreadPoolExecutor(workers) as pool:
        results = pool.map(work, items)
        return list(track(results, what, len(items), console=console, disable=not console.is_terminal))


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
    """What is lost of mAP50-95, and of the AP of each top class."""

    def check(name: str, figure: str, limit: float, chance: float = 0.0) -> Check:
        drop = points(before, figure) - points(after, figure)
        return Check(name, drop, limit + chance, drop <= limit + chance, chance, figure)

    names = {category["id"]: category["name"] for category in truth["categories"]}
    counts = Counter(names[row["category_id"]] for row in truth["annotations"] if not row["iscrowd"])
    top = [(name, count) for name, count in counts.most_common(TOP_CLASSES) if count >= TOP_CLASS_BOXES]
    return [check("mAP50-95 drop (points)", "map50_95", gate.map_points)] + [
        check(f"AP drop of {name} (points, {count} boxes)", name, gate.class_points, CHANCE_POINTS / math.sqrt(count))
        for name, count in top
    ]


def _agreement_check(gate: Gate, after: Accuracy) -> Check:
    passed = after.map50 >= gate.agreement
    return Check("agreement with the source (mAP50)", after.map50, gate.agreement, passed, figure="map50")


def _latency_check(gate: Gate, p95_ms: float) -> Check:
    return Check("p95 latency (ms)", p95_ms, gate.p95_ms, gate.p95_ms is None or p95_ms <= gate.p95_ms)


def _repeat_checks(client: DetectionClient, images: Sequence[Path], spec: DetectorSpec, gate: Gate) -> list[Check]:
    """The same request twice gives the same bits; a batch finds what its images alone give.

    A GPU may choose other kernels for another batch size, so a batch is held to agreement and not to the bit.
    """
    alone, again = ([_found(client.detect(image)) for image in images] for _ in range(2))
    batch, batch_again = ([_found(found) for found in client.detect_batch(images)] for _ in range(2))
    pairs = [*zip(alone, again, strict=True), *zip(batch, batch_again, strict=True)]
    changed = sum(not all(map(np.array_equal, one, other)) for one, other in pairs)
    checks = [Check("change when sent again (images)", changed, 0, changed == 0)]
    if any(len(found.scores) for found in alone):
        agreement = accuracy(as_truth(alone, spec.class_names, 0), batch).map50
        name = "agreement of a batch with its images alone (mAP50)"
        checks.append(Check(name, agreement, gate.agreement, agreement >= gate.agreement))
    return checks


def _latencies_ms(client: DetectionClient, images: Sequence[Path]) -> list[float]:
    encoded = [read_image(image) for image in images[:LATENCY_REQUESTS]]
    for number in range(WARM_UP):
        client.detect(encoded[number % len(encoded)])
    latencies_ms: list[float] = []
    deadline = time.monotonic() + LATENCY_TIME_S
    while len(latencies_ms) < LATENCY_REQUESTS and (len(latencies_ms) < 20 or time.monotonic() < deadline):
        started = time.perf_counter()
        client.detect(encoded[len(latencies_ms) % len(encoded)])
        latencies_ms.append(1000 * (time.perf_counter() - started))
    return latencies_ms


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
    _, record = adapt.read_adapted_file(arguments.source)
    dataset = read_dataset(arguments.data, record.spec.class_names, arguments.images)
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
