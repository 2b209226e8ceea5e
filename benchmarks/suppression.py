"""What suppression costs in postprocess, and what it would cost inside the engine, on this machine's CPU, in one run.

    python benchmarks/suppression.py [--before BOXES.py]

Inside the engine it is ONNX's NonMaxSuppression after the candidates, whose losers get a negative score. What that
would save is the difference between postprocess and postprocess of candidates of which the survivors alone score above
the threshold. All take turns; each figure is the best of several turns, in CPU time of all threads. `--before` takes
another `triptych/vision/boxes.py`, such as that of an older commit, into the turns.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from triptych.vision import boxes

Candidates = NDArray[np.float32]

TURNS = 15
K = 1000
THRESHOLDS: dict[str, Any] = {"score_threshold": 0.25, "iou_threshold": 0.45}

OPERATOR = """<ir_version: 8, opset_import: ["" : 17]>
suppression (float[n, 1000, 6] candidates) => (float[n, 1000] signed)
<int64[1] two = {2}, int64[1] four = {4}, int64[1] five = {5}, int64[1] six = {6}, int64[1] zero = {0},
 int64[2] image_and_row = {0, 2}, int64[1] most = {1000}, float[1] iou = {0.45}, float[1] least = {0},
 float far = {4096}> {
    low = Slice (candidates, zero, two, two)
    high = Slice (candidates, two, four, two)
    score = Slice (candidates, four, five, two)
    label = Slice (candidates, five, six, two)
    above = Max (low, high)
    corners = Concat <axis = 2> (low, above)
    shift = Mul (label, far)
    apart = Add (corners, shift)
    scores = Transpose <perm = [0, 2, 1]> (score)
    chosen = NonMaxSuppression (apart, scores, most, iou, least)
    places = Gather <axis = 1> (chosen, image_and_row)
    flat = Squeeze (score, two)
    lost = Neg (flat)
    won = GatherND (flat, places)
    signed = ScatterND (lost, places, won)
}"""
"""The scores of candidates, negative where suppression dropped the box."""


def crowd(count: int, objects: int, classes: int = 6) -> Candidates:
    """Return float32 [1, K, 6], of which `count` score above the usual threshold, on so many objects."""
    rng = np.random.default_rng(1)
    of = rng.integers(0, objects, count)
    centres = rng.uniform(0, 600, (objects, 2))[of] + rng.normal(0, 2, (count, 2))
    halves = rng.uniform(8, 60, (objects, 2))[of] * rng.uniform(0.9, 1.1, (count, 2))
    found = np.zeros((1, K, 6), np.float32)
    found[0, :count, :4] = np.hstack([centres - halves, centres + halves])
    found[0, :count, 4] = np.sort(rng.uniform(0.25, 0.9, count))[::-1]
    found[0, :count, 5] = rng.integers(0, classes, objects)[of]
    return found


def in_turns(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Return the CPU microseconds of each call, the best of some turns."""
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(TURNS):
        for name, call in calls.items():
            call()
            began = time.process_time()
            for _ in range(5):
                call()
            best[name] = min(best[name], (time.process_time() - began) / 5 * 1e6)
    return best


def engines() -> dict[str, Callable[[Candidates], Any]]:
    """Return the operator in each runtime, on one thread."""
    model = onnx.parser.parse_model(OPERATOR)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU", {"INFERENCE_NUM_THREADS": 1})
    request = compiled.create_infer_request()
    return {
        "ONNX Runtime": lambda found: session.run(None, {"candidates": found})[0],
        "OpenVINO": lambda found: request.infer([found], share_inputs=True)[0],
    }


def load(file: Path) -> Any:
    """Import another version of `triptych.vision.boxes`."""
    spec = importlib.util.spec_from_file_location("boxes_before", file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """Measure, and print a table of CPU microseconds for each image."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="another boxes.py to measure in turns with ours")
    before = parser.parse_args().before
    versions = {**({"before": load(before)} if before else {}), "now": boxes}
    operators = engines()
    columns = [*versions, "already suppressed", *operators]
    table = Table("candidates", "objects left", "images", *columns, title="CPU µs for each image")
    for column in table.columns[1:]:
        column.justify = "right"
    cases = [(20, 4, 6), (60, 12, 6), (300, 30, 6), (300, 3000, 6), (1000, 100, 6), (1000, 100, 1), (1000, 400, 1)]
    for count, objects, classes in cases:
        for images in (1, 4, 8):
            found = np.repeat(crowd(count, objects, classes), images, axis=0)
            geometry = np.tile(np.array([[1, 1, 0, 0, 640, 640]], np.float32), (images, 1))
            signed = {name: np.array(run(found)) for name, run in operators.items()}
            expected = boxes.postprocess(found, geometry, **THRESHOLDS, rows=K)
            for name, scores in signed.items():
                left = (scores >= THRESHOLDS["score_threshold"]).sum(1)
                assert (left == expected.counts[:, 0]).all(), f"{name} keeps {left}, but postprocess {expected.counts}"
            suppressed = found.copy()
            suppressed[..., 4] = signed["ONNX Runtime"]
            calls: dict[str, Callable[[], object]] = {
                name: partial(version.postprocess, found, geometry, **THRESHOLDS) for name, version in versions.items()
            }
            done = {**THRESHOLDS, "iou_threshold": 1.0}
            calls["already suppressed"] = partial(boxes.postprocess, suppressed, geometry, **done)
            calls |= {name: partial(run, found) for name, run in operators.items()}
            best = in_turns(calls)
            left = str(expected.counts[0, 0])
            of = f"{count} of {classes} {'class' if classes == 1 else 'classes'}"
            table.add_row(of, left, str(images), *(f"{best[name] / images:.0f}" for name in columns))
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
