"""Give an adapted ONNX the precision it is to run in: fp16 or bf16 tensors, or int8 by post-training quantization.

The precision is in the graph itself, as TensorRT from 10.12 on, TensorRT for RTX, ONNX Runtime and OpenVINO all read
it. What needs float32 keeps it: normalisation, the decode of boxes (in fp16 a coordinate of 640 is up to half a pixel
off), and the operators whose range fp16 does not hold.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path

import onnx

from triptych.contract import DetectorSpec
from triptych.errors import BuildError
from triptych.files import atomic_write
from triptych_build.adapt.onnx_file import read_adapted_file
from triptych_build.quantize import extremes
from triptych_build.quantize.calibrate import Calibration, measure_ranges, read_pixels
from triptych_build.quantize.narrow import narrow
from triptych_build.quantize.precision import check_precision, is_quantized, named
from triptych_build.quantize.qdq import Coverage, coverage, prepare, quantizable_layers, quantize_layers
from triptych_build.quantize.sensitivity import SensitiveLayer, sensitive_layers

SCAN_IMAGES = 8
"""Images that a scan compares detections on."""

MIN_INT8_SHARE = 0.5
"""int8 with a smaller share of its layers in int8 is refused, unless the user says another."""


@dataclass(frozen=True)
class Quantized:
    """A model in another precision.

    Attributes:
        model: its graph.
        left_in_float: the layers that a scan left in float.
        coverage: how much of it calculates in int8; None in another precision.
    """

    model: onnx.ModelProto
    left_in_float: tuple[SensitiveLayer, ...] = ()
    coverage: Coverage | None = None


def quantize_file(
    adapted: Path,
    out: Path,
    precision: str,
    calibration: Calibration | None = None,
    *,
    min_int8_share: float = MIN_INT8_SHARE,
) -> Quantized:
    """Write an adapted ONNX in another precision; the file is whole or not there.

    Args:
        adapted: the model.
        out: the file.
        precision: of `PRECISIONS`.
        calibration: the images that int8 ranges come from, and on which fp16 is measured; None for a model that is
            quantized already, or not to be measured.
        min_int8_share: the least share of the layers that int8 must reach, 0..1.

    Raises:
        BuildError: the model is not adapted, it is int8 without images to calibrate with, or too little became int8.
    """
    model, record = read_adapted_file(adapted)
    if precision != "int8":
        check_precision(model, precision, adapted)
        if precision == "fp16" and calibration:
            extremes.mark(model, read_pixels(calibration.images[: extremes.MEASURED_IMAGES], record.spec))
        result = Quantized(model if precision == "fp32" else narrow(model, precision))
    elif is_quantized(model):
        result = Quantized(model)
    elif calibration is None:
        raise BuildError("int8 needs images to calibrate with; name a directory of typical ones with --calibration")
    else:
        result = post_training(model, record.spec, calibration)
    if precision == "int8":
        result = replace(result, coverage=_covered(result.model, min_int8_share))
    with atomic_write(out) as aside:
        onnx.save(result.model, aside)
    return result


def describe(quantized: Quantized, out: Path, precision: str) -> list[str]:
    """Return what was made, in lines for the user."""
    layers = [
        f"quantize: {layer.name} stays in float: alone it moves detections by {layer.harm:.2%} "
        f"(all: {layer.all_harm:.2%})"
        for layer in quantized.left_in_float
    ]
    covered = [_covered_line(quantized.coverage)] if quantized.coverage else []
    kept = extremes.describe(quantized.model) if precision == "fp16" else []
    return [*layers, *covered, *kept, f"quantize: {out} in {precision}, {out.stat().st_size / 1e6:.1f} MB"]


def _covered_line(covered: Coverage) -> str:
    text = f"quantize: {len(covered.quantized)} of {len(covered.quantized) + len(covered.left)} layers in int8"
    return f"{text}; in float: {named(covered.left)}" if covered.left else text


def _covered(model: onnx.ModelProto, least: float) -> Coverage:
    covered = coverage(model)
    if covered.share < least:
        raise BuildError(
            f"only {len(covered.quantized)} of {len(covered.quantized) + len(covered.left)} layers became int8, fewer "
            f"than {least:.0%}: {named(covered.left)} stayed in float; exclude fewer, build fp16, or have it so with "
            f"--min-int8-share {math.floor(100 * covered.share) / 100:g}"
        )
    return covered


def post_training(model: onnx.ModelProto, spec: DetectorSpec, calibration: Calibration) -> Quantized:
    """Put Q/DQ pairs before every layer that int8 makes faster, except those that are excluded.

    Raises:
        BuildError: the graph is quantized already, no image can be read, or a pattern names no layer.
    """
    if is_quantized(model):
        raise BuildError(
            "the model is quantized already (it holds Q/DQ pairs); build it as it is, with --precision int8"
        )
    model = prepare(model)
    layers = quantizable_layers(model)
    excluded = _matching(calibration.exclude, layers)
    chosen = [name for name in layers if name not in excluded]
    if not chosen:
        raise BuildError("every layer is excluded from int8; exclude fewer, or build fp16")
    ranges = measure_ranges(model, spec, calibration)
    left: list[SensitiveLayer] = []
    if calibration.scan:
        left = sensitive_layers(model, ranges, read_pixels(calibration.images[:SCAN_IMAGES], spec), chosen)
        chosen = [name for name in chosen if name not in {layer.name for layer in left}]
    return Quantized(quantize_layers(model, ranges, chosen), tuple(left))


def _matching(patterns: Iterable[str], layers: Sequence[str]) -> set[str]:
    matching: set[str] = set()
    for pattern in patterns:
        matches = {layer for layer in layers if fnmatch(layer, pattern)}
        if not matches:
            some = ", ".join(layers[:3])
            raise BuildError(f"--exclude {pattern} names no layer that int8 would change; such layers are {some}, …")
        matching |= matches
    return matching
