"""One runtime, measured in a process of its own, which `compare.py` starts.

It imports only what is measured, so that no other library's threads and memory are in the way.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from triptych.contract import DetectorSpec
from triptych.errors import BuildError, TriptychError
from triptych.runtimes import Runtime, open_runtime
from triptych.vision.boxes import postprocess
from triptych.vision.letterbox import preprocess
from triptych_build.compare.runtimes import RUNTIMES

SCORE_THRESHOLD = 0.001
"""Accuracy is measured with nearly every candidate, as COCO does it."""

WARM_UP = 3
"""Calls of each stream before its clock starts."""

TIMED_IMAGES = 16
"""The images that are timed, over and over."""


class Scenario(NamedTuple):
    """How frames come: `streams` threads that each have their own detector, `batch` frames a call."""

    streams: int
    batch: int

    def __str__(self) -> str:
        return f"{self.streams} stream{'s' if self.streams > 1 else ''} x batch {self.batch}"


SCENARIOS = (Scenario(1, 1), Scenario(1, 2), Scenario(2, 1))


@dataclass(frozen=True)
class Job:
    """The work of one process.

    Attributes:
        runtime, model, precision: see `triptych.runtimes.open_runtime`.
        threads: of one stream; two streams have half as many each, and at least one.
        spec: the `DetectorSpec`, as a dictionary.
        images: the image files.
        frames: frames to time in each scenario, an even number; 0: detect in the images.
    """

    runtime: str
    model: str
    precision: str
    threads: int
    spec: dict[str, Any]
    images: list[str]
    frames: int

    def open_runtime(self, streams: int = 1) -> Runtime:
        """Open the detector, with its share of the threads."""
        threads = max(1, self.threads // streams)
        return open_runtime(
            self.runtime, Path(self.model), threads=threads, precision=self.precision, runtimes=RUNTIMES
        )


def detect(job: Job) -> dict[str, Any]:
    """Return boxes [n, 4], scores [n] and labels [n] of each image, through the pipeline's own pre- and postprocess."""
    runtime, spec = job.open_runtime(), DetectorSpec(**job.spec)
    predictions = []
    for name in job.images:
        prepared = _prepared([name], spec)
        detected = postprocess(
            runtime.detect(prepared.pixels),
            prepared.geometry,
            score_threshold=SCORE_THRESHOLD,
            iou_threshold=spec.iou_threshold,
        )
        count = int(detected.counts[0, 0])
        predictions.append([column[0, :count].tolist() for column in detected[:3]])
    return {"predictions": predictions}


def time_frames(job: Job) -> dict[str, Any]:
    """Return seconds to load, and each scenario's latencies (ms a call) and seconds for all of its frames."""
    pixels = _prepared(job.images[:TIMED_IMAGES], DetectorSpec(**job.spec)).pixels
    started = time.perf_counter()
    runtime = job.open_runtime()
    runtime.detect(pixels[:1])
    result: dict[str, Any] = {"load_s": time.perf_counter() - started}
    for scenario in SCENARIOS:
        runtimes = (
            [runtime]
            if scenario.streams == 1
            else [job.open_runtime(scenario.streams) for _ in range(scenario.streams)]
        )
        calls = job.frames // (scenario.streams * scenario.batch)
        latencies_ms, seconds = time_streams([one.detect for one in runtimes], pixels, scenario.batch, calls)
        result[str(scenario)] = {"latencies_ms": latencies_ms, "seconds": seconds}
    return result


def _prepared(names: Sequence[str], spec: DetectorSpec) -> Any:
    prepared = preprocess([Path(name).read_bytes() for name in names], spec)
    for name, error in zip(names, prepared.errors, strict=True):
        if error:
            raise BuildError(f"{name}: {error}")
    return prepared


def time_streams(
    detectors: Sequence[Callable[[NDArray[np.uint8]], object]], pixels: NDArray[np.uint8], batch: int, calls: int
) -> tuple[list[float], float]:
    """Call each detector `calls` times in a thread of its own.

    Returns:
        All latencies in ms, and the seconds from the start until the last thread ends.
    """
    clock: list[float] = []  # when all were warm, then when each ended
    start = threading.Barrier(len(detectors), action=lambda: clock.append(time.perf_counter()))
    latencies_ms: list[float] = []
    failures: list[Exception] = []

    def stream(detect: Callable[[NDArray[np.uint8]], object], offset: int) -> None:
        rows = (np.arange(batch * len(pixels)) + offset).reshape(-1, batch) % len(pixels)
        batches = cycle([pixels[row] for row in rows])
        try:
            for _ in range(WARM_UP):
                detect(next(batches))
            start.wait()
            for _ in range(calls):
                sent = time.perf_counter()
                detect(next(batches))
                latencies_ms.append((time.perf_counter() - sent) * 1000)
            clock.append(time.perf_counter())
        except Exception as error:  # raised again once the threads have ended
            failures.append(error)
            start.abort()

    threads = [
        threading.Thread(target=stream, args=(detect, number * len(pixels) // len(detectors)))
        for number, detect in enumerate(detectors)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return latencies_ms, max(clock) - min(clock)


def main() -> None:
    """Do the job on standard input, and write the result to the file that the command line names."""
    job = Job(**json.load(sys.stdin))
    try:
        result = time_frames(job) if job.frames else detect(job)
    except TriptychError as error:
        result = {"error": str(error)}
    Path(sys.argv[1]).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
