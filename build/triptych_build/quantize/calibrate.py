"""The ranges of int8: calibration images through the model, and a range for each activation from what was measured."""

from __future__ import annotations

import contextlib
import hashlib
import io
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization.calibrate import CalibrationDataReader, CalibrationMethod, TensorsData, create_calibrator

from triptych.contract import PIXELS, DetectorSpec
from triptych.errors import BuildError
from triptych.files import sha256
from triptych.vision.decode import image_files
from triptych.vision.letterbox import preprocess
from triptych_build.quantize.precision import MATRIX_OPERATORS
from triptych_build.quantize.progress import tracked

Method = Literal["percentile", "entropy", "max"]

METHODS: dict[Method, CalibrationMethod] = {
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
    "max": CalibrationMethod.MinMax,
}

ADVISED_IMAGES = 200
"""Fewer calibration images than this get a warning."""

BINS = 512
"""Bins of the histograms in which entropy looks for a range: it tries a range for each bin beyond the 64 of int8."""

CHUNK = 8
"""Images between two updates of the histograms; every activation of a chunk is in memory at once."""


@dataclass(frozen=True)
class Calibration:
    """The images that int8 ranges come from.

    Attributes:
        images: files, which pass through the serving preprocess.
        method: how a range is chosen from what was measured.
        exclude: names or patterns of layers that stay in float.
        scan: leave the most sensitive layers in float as well.
    """

    images: tuple[Path, ...]
    method: Method = "percentile"
    exclude: tuple[str, ...] = ()
    scan: bool = False

    def sha256(self) -> str:
        """Return a hash of the images' contents, in order."""
        return hashlib.sha256(b"".join(bytes.fromhex(sha256(path)) for path in self.images)).hexdigest()


def describe_calibration(calibration: Calibration) -> list[str]:
    """Return a line for the user where there are few images; none otherwise."""
    count = len(calibration.images)
    if count >= ADVISED_IMAGES:
        return []
    return [f"quantize: only {count} calibration images; {ADVISED_IMAGES} or more are advised"]


def calibration_images(directory: Path) -> tuple[Path, ...]:
    """Return the images of a directory.

    Raises:
        BuildError: there is no such directory, or no image in it.
    """
    if not directory.is_dir():
        raise BuildError(f"there is no directory of calibration images {directory}; name one with --calibration")
    images = tuple(image_files(directory))
    if not images:
        raise BuildError(
            f"{directory} holds no images to calibrate with; put at least {ADVISED_IMAGES} typical ones there"
        )
    return images


def read_pixels(images: Sequence[Path], spec: DetectorSpec) -> NDArray[np.uint8]:
    """Pass files through the serving preprocess: uint8 [N, H, W, 3].

    Raises:
        BuildError: one cannot be read.
    """
    pixels, _, errors = preprocess([path.read_bytes() for path in images], spec)
    for path, error in zip(images, errors, strict=True):
        if error:
            raise BuildError(f"the calibration image {path} cannot be read ({error}); remove it")
    return pixels


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Some images, as ONNX Runtime's calibrators want them."""

    def __init__(self, pixels: Iterable[NDArray[np.uint8]]) -> None:
        self._inputs = iter([{PIXELS.name: image[None]} for image in pixels])

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        return next(self._inputs, None)


def measure_ranges(model: onnx.ModelProto, spec: DetectorSpec, calibration: Calibration) -> TensorsData:
    """Return the range of every activation over the calibration images."""
    with tempfile.TemporaryDirectory(prefix="triptych-calibration-") as scratch:
        onnx.save(model, Path(scratch) / "model.onnx")
        calibrator = create_calibrator(
            Path(scratch) / "model.onnx",
            list(MATRIX_OPERATORS),
            augmented_model_path=f"{scratch}/augmented.onnx",
            calibrate_method=METHODS[calibration.method],
            extra_options={"symmetric": True, **({"num_bins": BINS} if calibration.method == "entropy" else {})},
        )
        starts = range(0, len(calibration.images), CHUNK)
        with contextlib.redirect_stdout(io.StringIO()):  # the calibrators print
            for start in tracked(starts, "calibrate"):
                calibrator.collect_data(_Reader(read_pixels(calibration.images[start : start + CHUNK], spec)))
            if calibration.method == "entropy":
                _ignore_zeros(calibrator)
            return calibrator.compute_data()


def _ignore_zeros(calibrator: Any) -> None:
    """Take zeros, which any range holds, out of the histograms: with ReLU they outweigh all that ranges differ in."""
    for counts, *_ in calibrator.collector.histogram_dict.values():
        middle = len(counts) // 2
        counts[middle], counts[middle - 1] = counts[middle + 1], counts[middle - 2]
