"""What decoding JPEGs on a GPU changes and saves: images a second of one process, boxes and mAP against the CPU's.

    python benchmarks/gpu_decoding.py adapted.onnx --data instances.json --images DIR

The detector runs on the CPU, in FP32, so that the pixels alone make the difference.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cuda.bindings import runtime as cuda
from cuda.core.utils import StridedMemoryView
from numpy.typing import NDArray

from triptych.cuda import checked
from triptych.vision.gpu import open_card
from triptych.vision.gpu.decoder import GpuDecoder, Request
from triptych.vision.letterbox import preprocess
from triptych_build.adapt.onnx_file import read_adapted_file
from triptych_build.verify.datasets import read_dataset
from triptych_build.verify.figures import MAP, Yardstick
from triptych_build.verify.metrics import Predictions
from triptych_build.verify.reference import Stages, reference_stages

SCORE_FLOOR = 0.001
SURE = 0.5
WITHIN_PX, NEAR_PX = 0.5, 16
SECONDS = 2.0


def on_host(pixels: Any) -> NDArray[np.uint8]:
    """Copy pixels from the GPU."""
    view = StridedMemoryView.from_dlpack(pixels, stream_ptr=-1)
    array = np.empty(view.shape, np.uint8)
    checked(cuda.cudaMemcpy(array.ctypes.data, view.ptr, array.nbytes, cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost))
    return array


def rate(images: Sequence[bytes], batch: int, run: Callable[[Sequence[bytes]], object]) -> float:
    """Return how many images a second one process preprocesses in batches of that size."""
    batches = [images[at : at + batch] for at in range(0, len(images) - batch + 1, batch)] or [images]
    run(batches[0])
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < SECONDS:
        for one in batches:
            run(one)
            count += len(one)
    return count / (time.perf_counter() - began)


def apart_px(found: Predictions, expected: Predictions) -> list[float]:
    """Return how many pixels each sure box is from the nearest of its class that was found; infinite if none was."""
    sure = expected.scores > SURE
    return [
        float(np.abs(found.boxes_xyxy[found.labels == label] - box).max(1).min(initial=np.inf))
        for box, label in zip(expected.boxes_xyxy[sure], expected.labels[sure], strict=True)
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("adapted", type=Path, help="adapted ONNX in float32")
    parser.add_argument("--data", type=Path, required=True, help="labels, as for `triptych build`")
    parser.add_argument("--images", type=Path, help="where the images are, if the labels do not say")
    arguments = parser.parse_args()
    spec = read_adapted_file(arguments.adapted)[1].spec
    dataset = read_dataset(arguments.data, spec.class_names, arguments.images)
    if dataset.truth is None:
        parser.error(f"{arguments.data} has no labels")
    images = [path.read_bytes() for path in dataset.images]
    decoded: list[int] = []
    decoder = GpuDecoder(open_card(0, spec), spec, on_decoded=decoded.append)
    by_cpu = preprocess(images, spec)
    by_gpu = decoder.preprocess([Request(images)])[0]
    pixels = on_host(by_gpu.pixels)
    levels = np.abs(pixels.astype(np.int16) - by_cpu.pixels)
    print(f"{decoded[0]} of {len(images)} images decoded on the GPU")
    print(f"levels from the CPU's: {levels.mean():.2f} on average, at most {levels.max()}")

    stages: Stages = reference_stages(arguments.adapted, spec, SCORE_FLOOR)
    expected, found = (
        [
            stages.postprocess(stages.detector(one), geometry)
            for one, geometry in zip(made, by_cpu.geometry, strict=True)
        ]
        for made in (by_cpu.pixels, pixels)
    )
    losses = Yardstick(dataset.truth, expected, spec.score_threshold).losses(found)[MAP]
    low, high = np.quantile(losses[1:], [0.025, 0.975])
    print(f"mAP50-95 loses {losses[0]:.2f} points ({low:.2f} to {high:.2f})")
    apart = np.concatenate([*map(apart_px, found, expected)])
    near = apart[apart < NEAR_PX]
    print(
        f"boxes above {SURE}: {len(apart)}, of which {len(apart) - len(near)} are not found again; of the others "
        f"{np.mean(near <= WITHIN_PX):.1%} are within {WITHIN_PX} px, and all within {near.max(initial=0):.2f}"
    )

    print("| images a call | CPU, images/s | GPU, images/s |\n| ---: | ---: | ---: |")
    for batch in (1, 8, 16):
        cpu = rate(images, batch, lambda some: preprocess(some, spec))
        gpu = rate(images, batch, lambda some: decoder.preprocess([Request(some)]))
        print(f"| {batch} | {cpu:.0f} | {gpu:.0f} |")


if __name__ == "__main__":
    main()
