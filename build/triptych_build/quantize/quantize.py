"""Give an adapted ONNX the precision it is to run in: fp16 or bf16 tensors, or int8 by post-training quantization.

    python build/quantize.py ADAPTED.onnx --precision int8 --calibration IMAGES --out INT8.onnx

The precision stands in the graph itself, as TensorRT from 10.12 on, TensorRT for RTX, ONNX Runtime and OpenVINO all
read it. What needs float32 keeps it: normalisation, the decode of boxes (a pixel of 640 is off by half a pixel in
fp16), and the operators whose range fp16 does not hold.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal, TypeVar

import ml_dtypes
import numpy as np
import onnx
import onnx.numpy_helper
import onnx.shape_inference
import onnx.version_converter
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import (
    CalibrationDataReader,
    CalibrationMethod,
    TensorsData,
    create_calibrator,
)
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from rich.console import Console
from rich.progress import track

from triptych.cli.console import run
from triptych.contract import CANDIDATES, PIXELS, DetectorSpec
from triptych.errors import BuildError
from triptych.files import atomic_write
from triptych.machine import available_cores
from triptych.vision.boxes import iou_xyxy
from triptych.vision.decode import image_files
from triptych.vision.letterbox import preprocess
from triptych_build.adapt import adapter as adapt

PRECISIONS = ("fp32", "fp16", "bf16", "int8")

T = TypeVar("T")

Method = Literal["percentile", "entropy", "max"]
METHODS: dict[str, CalibrationMethod] = {
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
    "max": CalibrationMethod.MinMax,
}

ADVISED_IMAGES = 200
"""Fewer calibration images than this are warned about."""

PAIR = ("QuantizeLinear", "DequantizeLinear")

MATRIX_OPERATORS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""The operators that int8 makes faster; what comes after the last of them decodes boxes, and keeps float32."""

WIDE_OPERATORS = frozenset(
    (
        *("Constant", "ConstantOfShape", "CumSum", "Exp", "If", "InstanceNormalization", "LayerNormalization", "Log"),
        *("LogSoftmax", "Loop", "NonMaxSuppression", "Pow", "Range", "Reciprocal", "ReduceL2", "ReduceMean"),
        *("ReduceSum", "ReduceSumSquare", "Scan"),
    )
)
"""Operators that keep float32: their range or their sums are more than fp16 holds, or they hold graphs of their own."""

_ELEMENTS = {"fp16": (TensorProto.FLOAT16, np.float16), "bf16": (TensorProto.BFLOAT16, ml_dtypes.bfloat16)}

BF16_OPSET = 22
"""The first in which convolutions take bfloat16."""

NARROW_SCALE_OPSET = 19
"""The first in which QuantizeLinear takes fp16."""

BINS = 512
"""Of the histograms that entropy looks for a range in: one range for each bin beyond the 64 of int8 is tried."""

CHUNK = 8
"""Images between two updates of the histograms; every activation of a chunk is in memory at once."""


@dataclass(frozen=True)
class Calibration:
    """The images that int8 ranges come from.

    Attributes:
        images: files, which pass through the serving preprocess.
        method: how a range is chosen from what was seen.
        exclude: names or patterns of layers that stay in float.
        scan: leave the most sensitive layers in float as well.
    """

    images: tuple[Path, ...]
    method: Method = "percentile"
    exclude: tuple[str, ...] = ()
    scan: bool = False

    def sha256(self) -> str:
        """A hash of the images' contents, in order."""
        digest = hashlib.sha256()
        for path in self.images:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()


def calibration_images(directory: Path) -> tuple[Path, ...]:
    """The images of a directory, with a warning where there are few.

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


def is_quantized(model: onnx.ModelProto) -> bool:
    """Whether a graph holds Q/DQ pairs already, as an export after quantization-aware training does."""
    return any(node.op_type == "QuantizeLinear" for node in model.graph.node)


def precision_of(model: onnx.ModelProto) -> str:
    """The precision that a graph says it has."""
    if is_quantized(model):
        return "int8"
    elements = {tensor.data_type for tensor in model.graph.initializer}
    return next((name for name, (element, _) in _ELEMENTS.items() if element in elements), "fp32")


def check_precision(model: onnx.ModelProto, precision: str, path: Path) -> None:
    """Make sure that a float32 or Q/DQ graph suits the precision that a plan is to have.

    Raises:
        BuildError: int8 without Q/DQ pairs, Q/DQ pairs without int8, or a graph narrowed already.
    """
    found = precision_of(model)
    if precision == "int8" and found != "int8":
        raise BuildError(
            f"{path} has no Q/DQ pairs; make them first: `python build/quantize.py {path} --precision int8 …`"
        )
    if precision != "int8" and found == "int8":
        raise BuildError(f"{path} is quantized already (it holds Q/DQ pairs); build it with --precision int8")
    if found in _ELEMENTS and found != precision:
        raise BuildError(f"{path} is in {found}, but {precision} is asked for; build from the float32 graph")


# --- fp16 and bf16 ---------------------------------------------------------------------------------------------------


def narrow(model: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    """The model with fp16 or bf16 tensors wherever that is safe; its input and output stay as the contract says.

    A narrowed tensor `x` goes by `x/fp16`, and `x` itself, cast back, is there for whoever still needs float32.
    """
    element, dtype = _ELEMENTS[precision]
    model = at_least_opset(
        model, BF16_OPSET if precision == "bf16" else NARROW_SCALE_OPSET if is_quantized(model) else 0
    )
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    floats = {
        value.name
        for value in (*graph.value_info, *graph.input, *graph.output)
        if value.type.tensor_type.elem_type == TensorProto.FLOAT
    }
    weights = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
    kept = wide_nodes(graph)
    wide = [at in kept or _overflows(node, weights, dtype) for at, node in enumerate(graph.node)]
    pairs = list(zip(graph.node, wide, strict=True))
    is_narrow = {name for node, is_wide in pairs if not is_wide for name in node.output if name in floats}
    needed_wide = {name for node, is_wide in pairs if is_wide for name in adapt.reads(node)}
    needed_wide |= {value.name for value in graph.output}

    def narrowed(name: str) -> str:
        return f"{name}/{precision}"

    nodes: list[onnx.NodeProto] = []
    cast: set[str] = set()
    for node, is_wide in pairs:
        if is_wide:
            nodes.append(node)
            continue
        for position, name in enumerate(node.input):
            if (name not in floats and name not in weights) or position in _float_only_inputs(node):
                continue
            if name not in is_narrow and name not in cast:
                cast.add(name)
                if name in weights:
                    array = onnx.numpy_helper.to_array(weights[name]).astype(dtype)
                    graph.initializer.append(onnx.numpy_helper.from_array(array, narrowed(name)))
                else:
                    nodes.append(onnx.helper.make_node("Cast", [name], [narrowed(name)], narrowed(name), to=element))
            node.input[position] = narrowed(name)
        if node.op_type == "Cast" and node.output[0] in is_narrow:
            next(attribute for attribute in node.attribute if attribute.name == "to").i = element
        outputs = [name for name in node.output if name in is_narrow]
        node.output[:] = [narrowed(name) if name in is_narrow else name for name in node.output]
        nodes.append(node)
        nodes.extend(
            onnx.helper.make_node("Cast", [narrowed(name)], [name], f"{name}/wide", to=TensorProto.FLOAT)
            for name in outputs
            if name in needed_wide
        )
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:], result.graph.initializer[:], result.graph.value_info[:]
    result.graph.node.extend(nodes)
    used = {name for node in nodes for name in adapt.reads(node)}
    result.graph.initializer.extend(tensor for tensor in graph.initializer if tensor.name in used)
    return result


def wide_nodes(graph: onnx.GraphProto) -> set[int]:
    """The nodes, by position, that keep float32: our own front and tail, the decode of boxes, sensitive operators."""
    feeds_matrix: set[str] = set()
    wide = set()
    for at in reversed(range(len(graph.node))):  # ONNX keeps its nodes in topological order
        node = graph.node[at]
        is_upstream = node.op_type in MATRIX_OPERATORS or not feeds_matrix.isdisjoint(node.output)
        if is_upstream:
            feeds_matrix.update(adapt.reads(node))
        if not is_upstream or node.op_type in WIDE_OPERATORS or is_own(node):
            wide.add(at)
    return wide


def is_own(node: onnx.NodeProto) -> bool:
    """Whether `adapt` put this node there; Q/DQ pairs take the names of what they quantize."""
    return node.op_type not in PAIR and any(
        name.startswith("triptych/") or name == CANDIDATES.name for name in node.output
    )


def _float_only_inputs(node: onnx.NodeProto) -> tuple[int, ...]:
    """Inputs that are float32 whatever the type of the others: the scales of a Resize."""
    return (1, 2) if node.op_type == "Resize" else ()


def _overflows(node: onnx.NodeProto, weights: dict[str, TensorProto], dtype: Any) -> bool:
    largest = float(ml_dtypes.finfo(dtype).max)
    arrays = (onnx.numpy_helper.to_array(weights[name]) for name in node.input if name in weights)
    return any(array.size and np.abs(array).max() > largest for array in arrays)


def at_least_opset(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """The model converted to an opset, if it is older."""
    if adapt.opset_of(model) >= opset:
        return model
    converted = onnx.version_converter.convert_version(model, opset)
    del converted.metadata_props[:]
    converted.metadata_props.extend(model.metadata_props)
    return converted


# --- int8 ------------------------------------------------------------------------------------------------------------


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Some images, as ONNX Runtime's calibrators want them."""

    def __init__(self, pixels: Iterable[NDArray[np.uint8]]) -> None:
        self._inputs = iter([{PIXELS.name: image[None]} for image in pixels])

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        return next(self._inputs, None)


def post_training(model: onnx.ModelProto, spec: DetectorSpec, calibration: Calibration) -> onnx.ModelProto:
    """Put symmetric Q/DQ pairs before every layer that int8 makes faster: per channel for weights, per tensor else.

    Raises:
        BuildError: the graph is quantized already, no image can be read, or a pattern names no layer.
    """
    if is_quantized(model):
        raise BuildError(
            "the model is quantized already (it holds Q/DQ pairs); build it as it is, with --precision int8"
        )
    model = named(model)
    layers = quantizable_layers(model)
    excluded = _matching(calibration.exclude, layers)
    ranges = measure_ranges(model, spec, calibration)
    if calibration.scan:
        sample = read_pixels(calibration.images[:SCAN_IMAGES], spec)
        excluded += sensitive_layers(model, ranges, sample, [name for name in layers if name not in excluded])
    chosen = [name for name in layers if name not in excluded]
    if not chosen:
        raise BuildError("every layer is excluded from int8; exclude fewer, or build fp16")
    return quantize_layers(model, ranges, chosen)


def quantizable_layers(model: onnx.ModelProto) -> list[str]:
    """The names of the layers that int8 makes faster, in order.

    Products of two activations stay in float, and so does the sum over a distribution that decodes a box (a Softmax,
    then a convolution with the weights 0, 1, 2, …): a step of int8 there is pixels.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    distributions = {name for node in model.graph.node if node.op_type == "Softmax" for name in node.output}
    return [
        node.name
        for node in model.graph.node
        if node.op_type in MATRIX_OPERATORS
        and node.input[1] in constants
        and distributions.isdisjoint(node.input)
        and not is_own(node)
    ]


def measure_ranges(model: onnx.ModelProto, spec: DetectorSpec, calibration: Calibration) -> TensorsData:
    """The range of every activation over the calibration images."""
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
            for start in _tracked(starts, "calibrate"):
                calibrator.collect_data(_Reader(read_pixels(calibration.images[start : start + CHUNK], spec)))
            if calibration.method == "entropy":
                _forget_zeros(calibrator)
            ranges: TensorsData = calibrator.compute_data()
    return ranges


def _forget_zeros(calibrator: Any) -> None:
    """Take zeros, which any range holds, out of the histograms: a ReLU's outweigh all that ranges differ in."""
    for counts, *_ in calibrator.collector.histogram_dict.values():
        middle = len(counts) // 2
        counts[middle], counts[middle - 1] = counts[middle + 1], counts[middle - 2]


def read_pixels(images: Sequence[Path], spec: DetectorSpec) -> NDArray[np.uint8]:
    """Files through the serving preprocess: uint8 [N, H, W, 3].

    Raises:
        BuildError: one cannot be read.
    """
    pixels, _, errors = preprocess([path.read_bytes() for path in images], spec)
    for path, error in zip(images, errors, strict=True):
        if error:
            raise BuildError(f"the calibration image {path} cannot be read ({error}); remove it")
    return pixels


def quantize_layers(model: onnx.ModelProto, ranges: TensorsData, layers: Sequence[str]) -> onnx.ModelProto:
    """Q/DQ pairs before these layers, on activations and weights; TensorRT wants none behind them."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    quantizer = QDQQuantizer(
        copy,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8,
        tensors_range=ranges,
        nodes_to_quantize=list(layers),
        nodes_to_exclude=[],
        op_types_to_quantize=list(MATRIX_OPERATORS),
        extra_options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "AddQDQPairToWeight": True,
            "QuantizeBias": False,
            "OpTypesToExcludeOutputQuantization": list(MATRIX_OPERATORS),
        },
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    result: onnx.ModelProto = quantizer.model.model
    return result


def activation_limits(model: onnx.ModelProto) -> dict[str, float]:
    """The largest absolute value that int8 holds of each quantized activation, by the tensor's name."""
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            values[node.output[0]] = onnx.numpy_helper.to_array(node.attribute[0].t)
        elif node.op_type == "Identity" and node.input[0] in values:  # exporters share equal constants this way
            values[node.output[0]] = values[node.input[0]]
    return {
        node.input[0]: 127 * float(values[node.input[1]])
        for node in model.graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] not in values
    }


def quantized_layers(model: onnx.ModelProto) -> list[str]:
    """The names of the layers that read an activation through a Q/DQ pair."""
    pairs = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    return [node.name for node in model.graph.node if node.op_type in MATRIX_OPERATORS and node.input[0] in pairs]


def without_pairs(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with every Q/DQ pair taken out again."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    made_by = {node.output[0]: node for node in model.graph.node if node.op_type in PAIR}
    nodes = [node for node in result.graph.node if node.op_type not in PAIR]
    for node in nodes:
        for at, name in enumerate(node.input):
            while name in made_by:
                name = made_by[name].input[0]
            node.input[at] = name
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    return result


SCAN_IMAGES = 8
SCAN_SHARE = 0.1
"""At most this share of the layers is left in float by a scan."""


def sensitive_layers(
    model: onnx.ModelProto, ranges: TensorsData, pixels: NDArray[np.uint8], layers: Sequence[str]
) -> list[str]:
    """The layers that int8 harms most, at most a tenth of them: each is quantized alone and compared with float32."""
    reference = _candidates(model, pixels)
    harm = {
        layer: disagreement(reference, _candidates(quantize_layers(model, ranges, [layer]), pixels))
        for layer in _tracked(layers, "sensitivity")
    }
    together = disagreement(reference, _candidates(quantize_layers(model, ranges, layers), pixels))
    worst = sorted(layers, key=lambda layer: -harm[layer])[: max(1, int(len(layers) * SCAN_SHARE))]
    chosen = [layer for layer in worst if harm[layer] > together / len(layers)]
    for layer in chosen:
        print(f"quantize: {layer} stays in float: alone it moves detections by {harm[layer]:.2%} (all: {together:.2%})")
    return chosen


def disagreement(reference: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """How far candidates [N, K, 6] are from others: 1 minus the mean of IoU times score ratio, over confident ones.

    Every candidate of the reference that scores 0.25 or more (the best one, where none does) is compared with the
    nearest of its class.
    """
    losses = []
    for rows, others in zip(reference, other, strict=True):
        for row in rows[: max(1, int((rows[:, 4] >= 0.25).sum()))]:
            same = others[others[:, 5] == row[5]]
            ratio = np.minimum(same[:, 4], row[4]) / np.maximum(np.maximum(same[:, 4], row[4]), 1e-9)
            likeness = iou_xyxy(row[None, :4], same[:, :4])[0] * ratio
            losses.append(1 - float(likeness.max(initial=0)))
    return float(np.mean(losses))


def _tracked(items: Sequence[T], what: str) -> Iterable[T]:
    """The items, with their progress on a terminal."""
    console = Console(stderr=True)
    return track(items, what, console=console, transient=True, disable=not console.is_terminal)


def _candidates(model: onnx.ModelProto, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = available_cores()
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run([CANDIDATES.name], {PIXELS.name: image[None]})[0] for image in pixels])


def named(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with a name for every node: layers are excluded by name."""
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{number}"
    return model


def _matching(patterns: Iterable[str], layers: Sequence[str]) -> list[str]:
    found: list[str] = []
    for pattern in patterns:
        matched = [layer for layer in layers if fnmatch(layer, pattern)]
        if not matched:
            some = ", ".join(layers[:3])
            raise BuildError(f"--exclude {pattern} names no layer that int8 would change; such layers are {some}, …")
        found += matched
    return found


# --- the step --------------------------------------------------------------------------------------------------------


def quantize_file(adapted: Path, out: Path, precision: str, calibration: Calibration | None = None) -> None:
    """Write an adapted ONNX in another precision; the file is whole or not there.

    Raises:
        BuildError: the model is not adapted, or int8 is asked for without images to calibrate with.
    """
    model, record = adapt.read_adapted_file(adapted)
    if precision != "int8":
        check_precision(model, precision, adapted)
        result = model if precision == "fp32" else narrow(model, precision)
    elif is_quantized(model):
        result = model
    elif calibration is None:
        raise BuildError("int8 needs images to calibrate with; name a directory of typical ones with --calibration")
    else:
        result = post_training(model, record.spec, calibration)
    with atomic_write(out) as aside:
        onnx.save(result, aside)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this step."""
    options = parser.add_argument_group("quantize", "for --precision int8")
    options.add_argument(
        "--calibration",
        type=Path,
        metavar="DIR",
        help=f"typical images that ranges come from, {ADVISED_IMAGES} or more",
    )
    options.add_argument("--method", choices=METHODS, default="percentile", help="how ranges are chosen (percentile)")
    options.add_argument(
        "--exclude", action="append", default=[], metavar="LAYER", help="a layer, or a pattern, that stays in float"
    )
    options.add_argument("--scan", action="store_true", help="find the most sensitive layers and leave them in float")


def calibration_from(arguments: argparse.Namespace) -> Calibration | None:
    """The options of this step as a value; None without images."""
    if arguments.calibration is None:
        return None
    images = calibration_images(arguments.calibration)
    if len(images) < ADVISED_IMAGES:
        print(f"quantize: only {len(images)} calibration images; {ADVISED_IMAGES} or more are advised")
    return Calibration(images, arguments.method, tuple(arguments.exclude), arguments.scan)


def main() -> None:
    """Run this step alone."""
    parser = argparse.ArgumentParser(prog="python build/quantize.py", description=__doc__.split("\n", 1)[0])
    parser.add_argument("model", type=Path, help="an adapted ONNX")
    parser.add_argument("--precision", choices=PRECISIONS[1:], required=True)
    parser.add_argument("--out", type=Path, required=True, help="the ONNX in that precision")
    add_arguments(parser)
    arguments = parser.parse_args()
    quantize_file(arguments.model, arguments.out, arguments.precision, calibration_from(arguments))
    print(f"quantize: {arguments.out} in {arguments.precision}, {arguments.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    run(main)
