"""What fp16 would lose of activations: their extremes on real images, and the tensors that need float32 for that.

Weights show whether they fit; activations show it only on images. What was found is kept in the graph's metadata, so
that `narrow` and TensorRT's builder leave the same operators wide.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx.helper
import onnx.shape_inference
import onnxruntime
from numpy.typing import NDArray

from triptych.contract import PIXELS
from triptych.files import atomic_write
from triptych.machine import available_cores
from triptych_build.adapt.onnx_file import read_adapted_file
from triptych_build.quantize.calibrate import read_pixels
from triptych_build.quantize.narrow import NEEDS_FLOAT32, narrow_nodes, needs_float32
from triptych_build.quantize.precision import named
from triptych_build.quantize.progress import tracked

MEASURED_IMAGES = 16
"""Images that activations are measured on, at most."""

LARGEST = 65504.0
"""The largest number of fp16."""

HEADROOM = 2.0
"""Other images may have activations so many times as large as those that were measured."""

SMALLEST = 2.0**-14
"""The smallest number that fp16 holds with all its digits."""

SENSITIVE_INPUTS = {"Div": 1, "Sqrt": 0}
"""The input, by operator, whose smallest value counts: as much of it is lost as of the result. Norms have both."""


def measure_file(adapted: Path, out: Path, images: Sequence[Path]) -> None:
    """Write an adapted ONNX once more, with the tensors that need float32 in its metadata; whole or not there.

    Raises:
        BuildError: the model is not adapted, or an image cannot be read.
    """
    model, record = read_adapted_file(adapted)
    mark(model, read_pixels(images[:MEASURED_IMAGES], record.spec))
    with atomic_write(out) as aside:
        onnx.save(model, aside)


def mark(model: onnx.ModelProto, pixels: NDArray[np.uint8]) -> None:
    """Put the tensors that need float32 on these images, uint8 [N, H, W, 3], into a graph's metadata, with reasons."""
    entry = model.metadata_props.add()
    entry.key, entry.value = NEEDS_FLOAT32, json.dumps(_beyond_fp16(model, pixels))


def describe(model: onnx.ModelProto) -> list[str]:
    """Return a line for the user on the tensors that keep float32 for their values; none where fp16 holds all."""
    reasons = [f"{name} ({reason})" for name, reason in needs_float32(model).items()]
    return [f"quantize: fp16 would lose activations, which stay in float32: {named(reasons)}"] if reasons else []


def _beyond_fp16(model: onnx.ModelProto, pixels: NDArray[np.uint8]) -> dict[str, str]:
    """Return the tensors that fp16 does not hold, by name, each with the reason."""
    reasons = {}
    for (tensor, is_smallest), value in _extremes(model, pixels).items():
        if is_smallest and value < SMALLEST:
            reasons[tensor] = f"what is divided by, or what a root is taken of, is as small as {value:.2g}"
        elif not is_smallest and not value <= LARGEST / HEADROOM:
            reasons[tensor] = f"it reaches {value:.3g}, and fp16 ends at {LARGEST:g}"
        elif not is_smallest and 0 < value < SMALLEST:
            reasons[tensor] = f"it is nowhere larger than {value:.2g}, and fp16 has few digits below {SMALLEST:.2g}"
    return reasons


def _extremes(model: onnx.ModelProto, pixels: NDArray[np.uint8]) -> dict[tuple[str, bool], float]:
    """Return the largest absolute value of each tensor, and the smallest where that counts (the key's second part)."""
    asked = list(dict.fromkeys(_questions(model)))
    augmented = onnx.ModelProto()
    augmented.CopyFrom(model)
    for number, (tensor, is_smallest) in enumerate(asked):
        kind, names = "ReduceMin" if is_smallest else "ReduceMax", (f"extreme/{number}/abs", f"extreme/{number}")
        augmented.graph.node.append(onnx.helper.make_node("Abs", [tensor], names[:1]))
        augmented.graph.node.append(onnx.helper.make_node(kind, names[:1], names[1:], keepdims=0))
        augmented.graph.output.append(onnx.helper.make_tensor_value_info(names[1], onnx.TensorProto.FLOAT, []))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = available_cores()
    session = onnxruntime.InferenceSession(augmented.SerializeToString(), options, providers=["CPUExecutionProvider"])
    outputs = [f"extreme/{number}" for number in range(len(asked))]
    rows = [session.run(outputs, {PIXELS.name: image[None]}) for image in tracked(list(pixels), "measure")]
    columns = np.array(rows, np.float64).T.reshape(len(asked), len(rows))
    return {
        question: float(column.min() if question[1] else column.max())
        for question, column in zip(asked, columns, strict=True)
    }


def _questions(model: onnx.ModelProto) -> Iterator[tuple[str, bool]]:
    """Yield the tensors that would be in fp16, and whether their smallest value is asked for."""
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    floats = {
        value.name
        for value in (*graph.value_info, *graph.output)
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }
    made = {name for node in graph.node if node.op_type != "Constant" for name in node.output} & floats
    for node in narrow_nodes(model):
        yield from ((name, False) for name in (*node.input, *node.output) if name in made)
        at = SENSITIVE_INPUTS.get(node.op_type)
        if at is not None and node.input[at] in made:
            yield node.input[at], True
