"""Compare the runtimes on one detector: accuracy on a validation set, size, load time, latency.

    python build/compare.py MODEL.onnx --data LABELS --out DIR

Every row runs in processes of its own, one at a time. The rows take turns in several rounds, each round in the other
order than the one before, so that a machine that slows down or speeds up favours none of them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from triptych.cli.console import run
from triptych.errors import BuildError
from triptych.files import atomic_write
from triptych.machine import available_cores, cpu_model, nvidia_gpus
from triptych_build.adapt import adapter as adapt
from triptych_build.adapt.adapter import Adapted, Overrides
from triptych_build.compare import report as compare_report
from triptych_build.compare.measure import SCENARIOS, Job
from triptych_build.compare.report import Comparison, Latency, Row
from triptych_build.compare.runtimes import RUNTIMES
from triptych_build.verify.datasets import Dataset, read_dataset
from triptych_build.verify.metrics import Accuracy, Predictions, accuracy

FRAMES = 250
ROUNDS = 5


@dataclass(frozen=True)
class Contestant:
    """A row of the tables: a model in a runtime."""

    label: str
    runtime: str
    model: Path
    precision: str = "f32"


@dataclass(frozen=True)
class Trial:
    """How to measure: threads of one stream, frames of each scenario over all rounds, and the rounds."""

    threads: int
    frames: int
    rounds: int

    def __post_init__(self) -> None:
        if self.threads < 1 or self.rounds < 1:
            raise BuildError(f"--threads and --rounds must be at least 1, but got {self.threads} and {self.rounds}")
        if self.frames < 2 * self.rounds or self.frames % 2:
            raise BuildError(
                f"--frames must be even and at least two for each of the {self.rounds} rounds, but got {self.frames}"
            )

    def frames_of(self, number: int) -> int:
        """The frames of a round, an even number, so that they part into batches and streams of two."""
        pairs = self.frames // 2
        return 2 * (pairs // self.rounds + (number < pairs % self.rounds))


def contestants(
    model: Path,
    int8: Path | None = None,
    plans: Sequence[tuple[str, Path]] = (),
    runtimes: Sequence[str] = tuple(RUNTIMES),
) -> list[Contestant]:
    """The rows: an adapted ONNX in every runtime, its int8 sibling in those that take it, and TensorRT plans.

    Raises:
        BuildError: two rows would have one label, a plan is not there, or no row is left.
    """
    rows = [
        Contestant("PyTorch FP32", "pytorch", model),
        Contestant("TorchScript FP32", "torchscript", model),
        Contestant("ONNX Runtime FP32", "onnxruntime", model),
        Contestant("OpenVINO FP32", "openvino", model),
        Contestant("OpenVINO BF16", "openvino", model, "bf16"),
    ]
    if int8:
        rows += [
            Contestant("ONNX Runtime INT8", "onnxruntime", int8),
            Contestant("OpenVINO INT8", "openvino", int8),
        ]
    for label, plan in plans:
        if any(row.label == label for row in rows):
            raise BuildError(f"two rows would be called {label!r}; give --plan another label")
        if not plan.is_file():
            raise BuildError(f"there is no plan {plan}")
        rows.append(Contestant(label, "tensorrt", plan))
    chosen = [row for row in rows if row.runtime in runtimes]
    if not chosen:
        raise BuildError("nothing is left to compare: the runtime tensorrt needs a plan, --plan LABEL=FILE")
    return chosen


def compare(
    rows: Sequence[Contestant], record: Adapted, dataset: Dataset, trial: Trial, tell: Callable[[str], None] = print
) -> list[Row]:
    """Measure every row; one that cannot be measured here says why.

    Args:
        rows: see `contestants`.
        record: what the adapted models say of themselves.
        dataset: images with labels.
        trial: how to measure.
        tell: is told before each process what it does.

    Raises:
        BuildError: the data has no labels.
    """
    if dataset.truth is None:
        raise BuildError("compare needs labels, but the data has images alone; name a COCO JSON or YOLO labels")
    images = [str(path.resolve()) for path in dataset.images]
    measured: dict[str, Accuracy] = {}
    reasons: dict[str, str] = {}
    turns: dict[str, list[dict[str, Any]]] = {row.label: [] for row in rows}

    def attempt(row: Contestant, frames: int) -> dict[str, Any]:
        spec = asdict(record.spec)
        result = run_in_own_process(
            Job(row.runtime, str(row.model.resolve()), row.precision, trial.threads, spec, images, frames)
        )
        if "error" in result:
            reasons[row.label] = result["error"]
        return result

    for row in rows:
        tell(f"{row.label}: {len(images)} images")
        found = attempt(row, 0).get("found")
        if found is not None:
            measured[row.label] = accuracy(dataset.truth, [_found(*columns) for columns in found])
    for number in range(trial.rounds):
        for row in rows if number % 2 == 0 else reversed(rows):
            tell(f"round {number + 1} of {trial.rounds}: {row.label}")
            if row.label not in reasons:
                turns[row.label].append(attempt(row, trial.frames_of(number)))
    return [_row(row, reasons.get(row.label, ""), measured.get(row.label), turns[row.label]) for row in rows]


def _found(boxes_xyxy: list[list[float]], scores: list[float], labels: list[int]) -> Predictions:
    return Predictions(
        np.array(boxes_xyxy, np.float32).reshape(-1, 4), np.array(scores, np.float32), np.array(labels, np.int32)
    )


def run_in_own_process(job: Job) -> dict[str, Any]:
    """The result of a job, or `{"error": why}`."""
    with tempfile.TemporaryDirectory(prefix="triptych-compare-") as scratch:
        out = Path(scratch) / "result.json"
        command = [sys.executable, "-m", "triptych_build.compare.measure", str(out)]
        done = subprocess.run(command, input=json.dumps(asdict(job)), capture_output=True, text=True, check=False)
        if done.returncode == 0:
            result: dict[str, Any] = json.loads(out.read_text())
            return result
    said = done.stderr.strip().splitlines()
    return {"error": f"its process ended with code {done.returncode}: {said[-1] if said else 'it said nothing'}"}


def _row(contestant: Contestant, reason: str, measured: Accuracy | None, turns: Sequence[dict[str, Any]]) -> Row:
    row = Row(
        label=contestant.label,
        runtime=contestant.runtime,
        precision=contestant.precision,
        device="GPU" if contestant.runtime == "tensorrt" else "CPU",
        model=contestant.model.name,
        megabytes=contestant.model.stat().st_size / 1e6,
        reason=reason,
    )
    if reason:
        return row
    latency = {}
    for scenario in map(str, SCENARIOS):
        latencies_ms = [value for turn in turns for value in turn[scenario]["latencies_ms"]]
        latency[scenario] = Latency(
            *(float(np.percentile(latencies_ms, percent)) for percent in (50, 95)),
            seconds=sum(turn[scenario]["seconds"] for turn in turns),
        )
    load_s = float(np.median([turn["load_s"] for turn in turns]))
    return replace(row, accuracy=measured, load_s=load_s, latency=latency)


def environment() -> dict[str, Any]:
    """Where and with what the figures were measured."""
    packages = ("triptych", "onnxruntime", "openvino", "torch", "onnx2torch", "tensorrt", "tensorrt-rtx-cu12", "numpy")
    versions = {}
    for package in packages:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    gpus = nvidia_gpus()
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join(["python", *sys.argv]),
        "cpu": cpu_model(),
        "cores": available_cores(),
        "gpu": f"{gpus[0].name}, driver {gpus[0].driver}" if gpus else None,
        "load_average_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": versions,
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this step."""
    group = parser.add_argument_group("compare")
    group.add_argument(
        "--data", type=Path, required=True, metavar="LABELS", help="validation set: COCO JSON, YOLO data.yaml or folder"
    )
    group.add_argument("--images", type=Path, metavar="DIR", help="where the images of a COCO JSON lie")
    group.add_argument(
        "--runtimes", nargs="+", choices=tuple(RUNTIMES), default=tuple(RUNTIMES), help="these alone; default: all"
    )
    group.add_argument("--int8", type=Path, metavar="ONNX", help="the adapted model in int8 (Q/DQ): two more rows")
    group.add_argument(
        "--plan",
        type=parse_plan,
        action="append",
        default=[],
        metavar="LABEL=FILE",
        help='a TensorRT plan as one more row, e.g. --plan "TensorRT FP16=model.plan"; may be repeated',
    )
    cores = available_cores()
    group.add_argument("--threads", type=int, default=cores, metavar="N", help=f"CPU threads of every row ({cores})")
    group.add_argument(
        "--frames", type=int, default=FRAMES, metavar="N", help=f"frames timed in each scenario, all rounds ({FRAMES})"
    )
    group.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help=f"turns of every row ({ROUNDS})")
    group.add_argument("--out", type=Path, metavar="DIR", help="write compare.json, compare.md and compare.svg here")


def parse_plan(text: str) -> tuple[str, Path]:
    """Label and file of `TensorRT FP16=model.plan`."""
    label, equals, file = text.partition("=")
    if not (label and equals and file):
        raise argparse.ArgumentTypeError(
            f'expected a label and a file like "TensorRT FP16=model.plan", but got {text!r}'
        )
    return label, Path(file)


def compare_from(arguments: argparse.Namespace, model: Path, overrides: Overrides) -> Comparison:
    """Compare as the options of this step say; print the tables, and write them where --out says."""
    trial = Trial(arguments.threads, arguments.frames, arguments.rounds)
    if arguments.out:
        _make_folder(arguments.out)
    where = environment()
    with tempfile.TemporaryDirectory(prefix="triptych-compare-") as scratch:
        adapted, record = _adapted(model, Path(scratch), overrides)
        if arguments.int8:
            _check_sibling(arguments.int8, record)
        dataset = read_dataset(arguments.data, record.spec.class_names, arguments.images)
        rows = contestants(adapted, arguments.int8, arguments.plan, arguments.runtimes)
        with _progress(len(rows) * (1 + trial.rounds)) as tell:
            measured = compare(rows, record, dataset, trial, tell)
    comparison = Comparison(len(dataset.images), trial.frames, trial.rounds, trial.threads, where, tuple(measured))
    compare_report.show(comparison, Console())
    if not comparison.measured:
        raise BuildError("no row could be measured; the reasons stand above")
    if arguments.out:
        _write(comparison, arguments.out)
    return comparison


def _adapted(model: Path, scratch: Path, overrides: Overrides) -> tuple[Path, Adapted]:
    """The model if it is adapted already, else what becomes of it."""
    record = adapt.read_adapted(adapt.read_onnx(model))
    if record is None:
        return scratch / model.name, adapt.adapt_file(model, scratch / model.name, overrides)
    if overrides != Overrides():
        raise BuildError(f"{model} is adapted already, so adapt's options come too late; give them with the source")
    return model, record


def _check_sibling(int8: Path, record: Adapted) -> None:
    """Refuse an int8 model that cannot stand beside the other."""
    other = adapt.read_adapted(adapt.read_onnx(int8))
    if other is None:
        raise BuildError(f"{int8} is not adapted; run `python build/adapt.py {int8} --out ADAPTED.onnx`")
    if other.spec != record.spec:
        raise BuildError(f"{int8} takes other pixels or has other classes than the model; quantize this very model")


@contextmanager
def _progress(total: int) -> Iterator[Callable[[str], None]]:
    """A bar on standard error; what it yields is told of each of `total` steps as it begins."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total, completed=-1)
        yield lambda step: progress.update(task, description=step, advance=1)


def _make_folder(out: Path) -> None:
    """Make the folder now, so that no measurement is lost for want of a place."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BuildError(f"cannot write to {out}: {error.strerror}; name another folder with --out") from error


def _write(comparison: Comparison, out: Path) -> None:
    with atomic_write(out / "compare.json") as aside:
        aside.write_text(json.dumps(asdict(comparison), indent=2) + "\n")
    with atomic_write(out / "compare.md") as aside:
        aside.write_text(compare_report.markdown(comparison))
    with atomic_write(out / "compare.svg") as aside:
        compare_report.draw(comparison).savefig(aside, format="svg")
    print(f"compare: compare.json, compare.md and compare.svg are in {out}")


def main() -> None:
    """Run this step."""
    parser = argparse.ArgumentParser(prog="python build/compare.py", description=__doc__.split("\n", 1)[0])
    parser.add_argument("model", type=Path, help="the detector's ONNX, adapted or as it was exported")
    add_arguments(parser)
    adapt.add_arguments(parser)
    arguments = parser.parse_args()
    compare_from(arguments, arguments.model, adapt.overrides_from(arguments))


if __name__ == "__main__":
    run(main)
