"""How much CPU time our own code takes with warm caches, stage by stage, outside of a server.

    python benchmarks/stages.py

In `pipeline.py` the stages run between inferences that fill the caches. The difference is what these cost.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import cv2
import numpy as np
from fixtures import encoded_boards
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from triptych.contract import DetectorSpec, names_id
from triptych.serving.stages.observers import PostprocessObserver, PreprocessObserver
from triptych.vision.boxes import postprocess
from triptych.vision.decode import decode, read_header
from triptych.vision.letterbox import letterbox, preprocess

REPEATS = 15


class NoMetrics:
    """Stands in for Triton's metrics: what the stages' own thread hands over costs no request anything."""

    class MetricFamily:
        COUNTER = GAUGE = ""

        def __init__(self, **_: str) -> None: ...

        def Metric(self, **_: object) -> Mock:  # noqa: N802  # as Triton calls it
            return Mock()


def cpu_ms(call: Callable[[], object]) -> float:
    """Return the best of several runs in CPU milliseconds per call; other work on the machine slows the others."""
    call()
    best = float("inf")
    for _ in range(REPEATS):
        started = time.process_time()
        for _ in range(8):
            call()
        best = min(best, (time.process_time() - started) / 8)
    return best * 1000


def candidates(survivors: int, k: int) -> NDArray[np.float32]:
    """Return float32 [1, K, 6], of which `survivors` score above the usual threshold: ten for each object."""
    rng = np.random.default_rng(0)
    rows = np.zeros((1, k, 6), np.float32)
    corners = np.repeat(rng.uniform(0, 600, (k // 10, 2)), 10, axis=0) + rng.normal(0, 1, (k, 2))
    rows[0, :, :4] = np.hstack([corners, corners + rng.normal(40, 1, (k, 2))])
    rows[0, :, 4] = np.where(np.arange(k) < survivors, 0.9, 0.01) - np.arange(k) / 1e5
    rows[0, :, 5] = np.repeat(rng.integers(0, 6, k // 10), 10)
    return rows


def main() -> None:
    """Measure each stage and print a table."""
    cv2.setNumThreads(1)
    (image,) = encoded_boards(1)
    spec, rgb, canvas = DetectorSpec(640, 640, ("any",)), decode(image), np.empty((640, 640, 3), np.uint8)
    full_hd = cv2.resize(rgb, (1920, 1080)).astype(np.uint8, copy=False)
    large_jpegs = [
        (*size, cv2.imencode(".jpg", cv2.resize(rgb, size))[1].tobytes())
        for size in ((1280, 720), (1920, 1080), (3840, 2160))
    ]
    whole = np.array([[1, 1, 0, 0, 640, 640]], np.float32)
    table = Table("stage", "CPU ms", title="Warm cost of our own code", title_justify="left")
    table.columns[1].justify = "right"
    names = tuple(f"class {number}" for number in range(6))
    observers = (
        PreprocessObserver(NoMetrics),
        PostprocessObserver(NoMetrics, replace(spec, class_names=names), Path("1")),
    )
    answer = postprocess(candidates(20, 1000), whole, score_threshold=0.25, iou_threshold=1)
    calls: list[tuple[str, Callable[[], object]]] = [
        ("header", lambda: read_header(image)),
        (f"decode a 640x640 JPEG of {len(image) / 1000:.0f} KB", lambda: decode(image)),
        ("letterbox 1920x1080", lambda: letterbox(full_hd, canvas)),
        ("preprocess one such JPEG", lambda: preprocess([image], spec)),
        *(
            (f"preprocess a JPEG of {width}x{height}, decode {how.decode}", partial(preprocess, [large], how))
            for width, height, large in large_jpegs
            for how in (spec, replace(spec, decode="scaled"))
        ),
        ("count that image", lambda: observers[0].images([image])),
        ("count an answer of 20 objects", lambda: observers[1].answers(answer, [names_id(names)])),
        *(
            (
                f"postprocess, {count} of {k} survive, {rows} rows",
                partial(postprocess, candidates(count, k), whole, score_threshold=0.25, iou_threshold=0.7, rows=rows),
            )
            for k, rows in ((300, 100), (1000, 300))
            for count in (0, 20, 300, 1000)
            if count <= k
        ),
    ]
    for name, call in calls:
        table.add_row(name, f"{cpu_ms(call):.4f}")
    Console().print(table)
    for observer in observers:
        observer.close()


if __name__ == "__main__":
    main()
