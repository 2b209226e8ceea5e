"""What the adapter needs to know of a detector's graph: its image, its outputs, its class names."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence

import numpy as np
import onnx
import onnx.helper
import onnx.shape_inference
import onnxruntime

from triptych.errors import BuildError
from triptych_build.adapt.heads import Output, Source
from triptych_build.adapt.onnx_file import opset_of

Shape = tuple[int | None, ...]


def image_input(model: onnx.ModelProto) -> onnx.ValueInfoProto:
    """Return the one image input [N, 3, H, W] of a source.

    Raises:
        BuildError: the model takes something else.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) == 1:
        shape = inputs[0].type.tensor_type.shape.dim
        if len(shape) == 4 and shape[1].dim_value == 3:
            return inputs[0]
    actual = "; ".join(f"{value.name} {_shape_text(value)}" for value in inputs) or "none"
    raise BuildError(f"a detector must take one image [N, 3, height, width], but the model's inputs are {actual}")


def _shape_text(value: onnx.ValueInfoProto) -> str:
    sizes = (str(dim.dim_value or dim.dim_param or "?") for dim in value.type.tensor_type.shape.dim)
    return f"[{', '.join(sizes)}]"


def metadata(model: onnx.ModelProto, key: str) -> str:
    """Return an entry of a model's metadata; empty where there is none."""
    return next((str(entry.value) for entry in model.metadata_props if entry.key == key), "")


def fix_size(model: onnx.ModelProto, image: onnx.ValueInfoProto, size: tuple[int, int] | None) -> None:
    """Give an input of open size the width and height that are asked for, or else the metadata's.

    Ultralytics writes them as `imgsz` [height, width].

    Raises:
        BuildError: the input has another size.
    """
    dims = image.type.tensor_type.shape.dim[2:]
    if size is None:
        sides = re.fullmatch(r"\[(\d+), (\d+)\]", metadata(model, "imgsz"))
        if not sides or all(dim.dim_value for dim in dims):
            return
        size = int(sides[2]), int(sides[1])
    for dim, asked, side in zip(dims, reversed(size), ("height", "width"), strict=True):
        if dim.dim_value and dim.dim_value != asked:
            raise BuildError(f"--size asks for {side} {asked}, but the model was exported with {side} {dim.dim_value}")
        dim.dim_value = asked


def describe_source(model: onnx.ModelProto, image: onnx.ValueInfoProto) -> Source:
    """Return the outputs and the size of a source; sizes that the file leaves open are inferred, or else measured.

    Raises:
        BuildError: the input has no fixed size.
    """
    height, width = (dim.dim_value for dim in image.type.tensor_type.shape.dim[2:])
    if not height or not width:
        raise BuildError(
            f"the model's input {image.name} {_shape_text(image)} has no fixed size; give one with --size, e.g. 640x640"
        )
    shapes = _inferred_shapes(model)
    if any(size is None for shape in shapes for size in shape[1:]):
        shapes = _measured_shapes(model, image)
    producers = {name: node.op_type for node in model.graph.node for name in node.output}
    outputs = (
        Output(value.name, shape, producers.get(value.name, ""))
        for value, shape in zip(model.graph.output, shapes, strict=True)
    )
    return Source(tuple(outputs), width, height, opset_of(model), frozenset(producers.values()))


def _inferred_shapes(model: onnx.ModelProto) -> list[Shape]:
    """Infer the shapes of the outputs from the inputs' shapes only."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]
    for value in bare.graph.output:
        value.type.tensor_type.ClearField("shape")
    outputs = onnx.shape_inference.infer_shapes(bare, data_prop=True).graph.output
    return [tuple(dim.dim_value or None for dim in value.type.tensor_type.shape.dim) for value in outputs]


def _measured_shapes(model: onnx.ModelProto, image: onnx.ValueInfoProto) -> list[Shape]:
    """Measure the outputs' shapes on two very different images; a size that differs between them is open."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    shape = [dim.dim_value or 1 for dim in image.type.tensor_type.shape.dim]
    dtype = onnx.helper.tensor_dtype_to_np_dtype(image.type.tensor_type.elem_type)
    noise = np.random.default_rng(0).random(shape).astype(dtype)
    runs = [session.run(None, {image.name: pixels}) for pixels in (np.zeros(shape, dtype), noise * 255)]
    return [
        tuple(one if one == other else None for one, other in zip(black.shape, noisy.shape, strict=True))
        for black, noisy in zip(*runs, strict=True)
    ]


def class_names(model: onnx.ModelProto, count: int | None, given: Sequence[str] | None) -> tuple[str, ...]:
    """Return the user's class names, else the metadata's (`{0: 'open', …}` as YOLO exports write it), else numbers.

    Args:
        model: the source.
        count: the number of its classes, or None if its shape does not show it.
        given: the user's names.

    Raises:
        BuildError: there are no names, or not as many as classes.
    """
    names = list(given) if given is not None else _names_in_metadata(model)
    if given is None and not names:
        names = [f"class {number}" for number in range(count or 0)]
    if not names:
        raise BuildError(
            "the classes are neither in the model's shape nor in its metadata; name them with --names FILE"
        )
    if count is not None and len(names) != count:
        raise BuildError(f"the model has {count} classes, but {len(names)} names were given; give one name for each")
    return tuple(names)


def _names_in_metadata(model: onnx.ModelProto) -> list[str]:
    try:
        names = ast.literal_eval(metadata(model, "names") or "{}")
    except (ValueError, SyntaxError):
        return []
    return [str(name) for name in (names.values() if isinstance(names, dict) else names)]
