"""Compare the runtimes on one detector: accuracy on a validation set, size, load time, latency.

Every case runs in processes of its own, one at a time. The cases take turns in several rounds, each round in the
reverse order of the one before, so that a machine that slows down or speeds up favours none of them.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from triptych.errors import BuildError
from triptych.machine import available_cores, cpu_model, nvidia_gpus
from triptych_build.adapt.adapter import Overrides, adapt_file
from triptych_build.adapt.onnx_file import Adapted, read_adapted, read_onnx
from triptych_build.compare.cases import Case, Trial, list_cases
from triptych_build.compare.measure import SCENARIOS, Job
from triptych_build.compare.report import Comparison, Latency, Row
from triptych_build.compare.runtimes import RUNTIMES
from triptych_build.verify.datasets import read_dataset
from triptych_build.verify.metrics import Accuracy, Predictions, accuracy
from triptych_build.verify.truth import Dataset

PACKAGES = ("triptych", "onnxruntime", "openvino", "torch", "onnx2torch", "tensorrt", "tensorrt-rtx-cu12", "numpy")


def compare_model(
    model: Path,
    data: Path,
    trial: Trial,
    *,
    images: Path | None = None,
    overrides: Overrides | None = None,
    int8: Path | None = None,
    plans: Sequence[tuple[str, Path]] = (),
    runtimes: Sequence[str] = tuple(RUNTIMES),
    progress: Callable[[str, int], None],
) -> Comparison:
    """Measure one detector in every runtime.

    Args:
        model: its ONNX, adapted or as it was exported.
        data: images with labels, see `read_dataset`.
        trial: how to measure.
        images: where the images of a COCO JSON lie.
        overrides: how to adapt a model that is not adapted yet.
        int8: the adapted model with Q/DQ pairs.
        plans: label and file of TensorRT plans.
        runtimes: keys of `RUNTIMES`.
        progress: called before each step with its name and the number of steps.

    Raises:
        BuildError: the model cannot be adapted, or the data, the int8 model or a plan does not fit it.
    """
    where = environment()
    with tempfile.TemporaryDirectory(prefix="triptych-compare-") as scratch:
        adapted, record = _adapted(model, Path(scratch), overrides or Overrides())
        if int8:
            _check_sibling(int8, record)
        dataset = read_dataset(data, record.spec.class_names, images)
        cases = list_cases(adapted, int8, plans, runtimes, has_gpu=bool(nvidia_gpus()))
        steps = len(cases) * (1 + trial.rounds)
        rows = compare_runtimes(cases, record, dataset, trial, lambda step: progress(step, steps))
    return Comparison(len(dataset.images), trial.frames, trial.rounds, trial.threads, where, tuple(rows))


def _adapted(model: Path, scratch: Path, overrides: Overrides) -> tuple[Path, Adapted]:
    """Return the model if it is adapted already, else adapt it."""
    record = read_adapted(read_onnx(model))
    if record is None:
        return scratch / model.name, adapt_file(model, scratch / model.name, overrides)
    if overrides != Overrides():
        raise BuildError(f"{model} is adapted already, so adapt's options come too late; give them with the source")
    return model, record


def _check_sibling(int8: Path, record: Adapted) -> None:
    """Refuse an int8 model of another detector."""
    other = read_adapted(read_onnx(int8))
    if other is None:
        raise BuildError(f"{int8} is not adapted; run `triptych adapt {int8} --out ADAPTED.onnx`")
    if other.spec != record.spec:
        raise BuildError(f"{int8} takes other pixels or has other classes than the model; quantize this very model")


def compare_runtimes(
    cases: Sequence[Case], record: Adapted, dataset: Dataset, trial: Trial, say: Callable[[str], None]
) -> list[Row]:
    """Measure every case; a case that cannot be measured here gives a row with the reason.

    Args:
        cases: see `list_cases`.
        record: the record of the adapted models.
        dataset: images with labels.
        trial: how to measure.
        say: gets each step before its process starts.

    Raises:
        BuildError: the data has no labels.
    """
    if dataset.truth is None:
        raise BuildError("a comparison needs labels, but the data has images alone; name a COCO JSON or YOLO labels")
    images = [str(path.resolve()) for path in dataset.images]
    accuracies: dict[str, Accuracy] = {}
    reasons: dict[str, str] = {}
    turns: dict[str, list[dict[str, Any]]] = {case.label: [] for case in cases}

    def attempt(case: Case, frames: int) -> dict[str, Any]:
        spec = asdict(record.spec)
        result = run_in_own_process(
            Job(case.runtime, str(case.model.resolve()), case.precision, trial.threads, spec, images, frames)
        )
        if "error" in result:
            reasons[case.label] = result["error"]
        return result

    for case in cases:
        say(f"{case.label}: {len(images)} images")
        predictions = attempt(case, 0).get("predictions")
        if predictions is not None:
            accuracies[case.label] = accuracy(dataset.truth, [_predictions(*columns) for columns in predictions])
    for number in range(trial.rounds):
        for case in cases if number % 2 == 0 else reversed(cases):
            say(f"round {number + 1} of {trial.rounds}: {case.label}")
            if case.label not in reasons:
                turns[case.label].append(attempt(case, trial.frames_of(number)))
    return [_row(case, reasons.get(case.label, ""), accuracies.get(case.label), turns[case.label]) for case in cases]


def _predictions(boxes_xyxy: list[list[float]], scores: list[float], labels: list[int]) -> Predictions:
    return Predictions(
        np.array(boxes_xyxy, np.float32).reshape(-1, 4), np.array(scores, np.float32), np.array(labels, np.int32)
    )


def run_in_own_process(job: Job) -> dict[str, Any]:
    """Return the result of a job, or `{"error": why}`."""
    with tempfile.TemporaryDirectory(prefix="triptych-compare-") as scratch:
        out = Path(scratch) / "result.json"
        command = [sys.executable, "-m", "triptych_build.compare.measure", str(out)]
        done = subprocess.run(command, input=json.dumps(asdict(job)), capture_output=True, text=True, check=False)
        if done.returncode == 0:
            result: dict[str, Any] = json.loads(out.read_text())
            return result
    lines = done.stderr.strip().splitlines()
    return {"error": f"its process ended with code {done.returncode}: {lines[-1] if lines else 'without a word'}"}


def _row(case: Case, reason: str, measured: Accuracy | None, turns: Sequence[dict[str, Any]]) -> Row:
    row = Row(
        label=case.label,
        runtime=case.runtime,
        precision=case.precision,
        device=case.device,
        model=case.model.name,
        megabytes=case.model.stat().st_size / 1e6,
        reason=reason,
    )
    if reason:
        return row
    latency = {}
    for scenario in map(str, SCENARIOS):
        latencies_ms = [value for turn in turns for value in turn[scenario]["latencies_ms"]]
        p50_ms, p95_ms = (float(np.percentile(latencies_ms, percent)) for percent in (50, 95))
        latency[scenario] = Latency(p50_ms, p95_ms, seconds=sum(turn[scenario]["seconds"] for turn in turns))
    load_s = float(np.median([turn["load_s"] for turn in turns]))
    return replace(row, accuracy=measured, load_s=load_s, latency=latency)


def environment() -> dict[str, Any]:
    """Return where and with what the figures are measured."""
    versions = {}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    gpus = nvidia_gpus()
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "cpu": cpu_model(),
        "cores": available_cores(),
        "gpu": f"{gpus[0].name}, driver {gpus[0].driver}" if gpus else None,
        "load_average_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": versions,
    }
