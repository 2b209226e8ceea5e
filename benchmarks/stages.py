"""How much CPU time our own code takes with warm caches, stage by stage, outside of a server.

    python benchmarks/stages.py

In `pipeline.py` the stages run between inferences that fill the caches. The difference is what these cost.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import cv2
import numpy as np
from fixtures import encoded_boards
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from triptych.contract import MAX_CANDIDATES, DetectorSpec
from triptych.vision.boxes import postprocess
from triptych.vision.decode import decode, read_header
from triptych.vision.letterbox import letterbox, preprocess

REPEATS = 15


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


def candidates(survivors: int) -> NDArray[np.float32]:
    """Return float32 [1, 300, 6], of which `survivors` score above the usual threshold."""
    rng = np.random.default_rng(0)
    rows = np.zeros((1, MAX_CANDIDATES, 6), np.float32)
    corners = rng.uniform(0, 600, (MAX_CANDIDATES, 2))
    rows[0, :, :4] = np.hstack([corners, corners + rng.uniform(10, 60, (MAX_CANDIDATES, 2))])
    rows[0, :, 4] = np.where(np.arange(MAX_CANDIDATES) < survivors, 0.9, 0.01) - np.arange(MAX_CANDIDATES) / 1e5
    rows[0, :, 5] = rng.integers(0, 6, MAX_CANDIDATES)
    return rows


def main() -> None:
    """Measure each stage and print a table."""
    cv2.setNumThreads(1)
    (image,) = encoded_boards(1)
    spec, rgb, canvas = DetectorSpec(640, 640, ("any",)), decode(image), np.empty((640, 640, 3), np.uint8)
    full_hd = cv2.resize(rgb, (1920, 1080)).astype(np.uint8, copy=False)
    whole = np.array([[1, 1, 0, 0, 640, 640]], np.float32)
    table = Table("stage", "CPU ms", title="Warm cost of our own code", title_justify="left")
    table.columns[1].justify = "right"
    calls: list[tuple[str, Callable[[], object]]] = [
        ("header by Pillow", lambda: read_header(image)),
        (f"decode a 640x640 JPEG of {len(image) / 1000:.0f} KB", lambda: decode(image)),
        ("letterbox 1920x1080", lambda: letterbox(full_hd, canvas)),
        ("preprocess one such JPEG", lambda: preprocess([image], spec)),
        *(
            (
                f"postprocess, {count} of {MAX_CANDIDATES} survive",
                partial(postprocess, candidates(count), whole, score_threshold=0.25, iou_threshold=0.7),
            )
            for count in (0, 20, 300)
        ),
    ]
    for name, call in calls:
        table.add_row(name, f"{cpu_ms(call):.3f}")
    Console().print(table)


if __name__ == "__main__":
    main()
