"""What the adapter needs to know of a detector's graph: its image, its outputs, and what they are on a few images."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import onnx.shape_inference
from numpy.typing import NDArray

from triptych.errors import BuildError
from triptych_build.adapt import probe
from triptych_build.adapt.heads import Normalization, Output, Source
from triptych_build.adapt.onnx_file import opset_of

Shape = tuple[int | None, ...]

STEP = 32
"""What the sides of most detectors' inputs are a multiple of: their coarsest stride."""

COLUMNS = {4, 5, 6, 7}
"""Of tables of boxes: a last axis that is so long on every image is not what suppression has left."""

SIZE_INPUTS = {"orig_target_sizes": "wh", "target_sizes": "hw", "im_shape": "hw", "scale_factor": "11"}
"""Inputs [N, 2] that tell a graph the size of the image, and what they want: width and height, the other way round, or
the factor of a resize."""


def take_image(model: onnx.ModelProto, size: tuple[int, int] | None) -> tuple[onnx.ValueInfoProto, bool]:
    """Make an image [N, 3, H, W] of a fixed size the only input of a source, in place.

    Args:
        model: the source.
        size: width and height that the user asks for; None: the model's own, or else the metadata's.

    Returns:
        The input, and whether the graph was told the size of the image.

    Raises:
        BuildError: the model takes something else, or its size is open and nothing names it.
    """
    sizes = [value for value in _inputs(model) if value.name in SIZE_INPUTS]
    image = image_input(model)
    _fix_size(model, image, size)
    height, width = (dim.dim_value for dim in image.type.tensor_type.shape.dim[2:])
    if not height or not width:
        raise BuildError(
            f"the model's input {image.name} {_shape_text(image)} has no fixed size; give one with --size, e.g. 640x640"
        )
    for value in sizes:
        model.graph.input.remove(value)
        numbers = {"wh": [width, height], "hw": [height, width], "11": [1, 1]}[SIZE_INPUTS[value.name]]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([numbers], dtype), value.name))
    return image, bool(sizes)


def _inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    weights = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def image_input(model: onnx.ModelProto) -> onnx.ValueInfoProto:
    """Return the one image input [N, 3, H, W] of a source; one of [N, H, W, 3] gets a Transpose behind it.

    Raises:
        BuildError: the model takes something else.
    """
    inputs = _inputs(model)
    images = [value for value in inputs if value.name not in SIZE_INPUTS]
    if len(images) == 1:
        dims = images[0].type.tensor_type.shape.dim
        if len(dims) == 4 and dims[1].dim_value == 3:
            return images[0]
        if len(dims) == 4 and dims[3].dim_value == 3:
            return _as_planes(model, images[0])
    actual = "; ".join(f"{value.name} {_shape_text(value)}" for value in inputs) or "none"
    raise BuildError(f"a detector must take one image [N, 3, height, width], but the model's inputs are {actual}")


def _as_planes(model: onnx.ModelProto, image: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
    """Put a Transpose behind an input [N, H, W, 3], and return the new input [N, 3, H, W]."""
    planes = onnx.ValueInfoProto()
    planes.CopyFrom(image)
    planes.name = f"{image.name}_planes"
    dims = image.type.tensor_type.shape.dim
    for dim, place in zip(planes.type.tensor_type.shape.dim, (0, 3, 1, 2), strict=True):
        dim.CopyFrom(dims[place])
    transpose = onnx.helper.make_node("Transpose", [planes.name], [image.name], "planes_last", perm=[0, 2, 3, 1])
    model.graph.node.insert(0, transpose)
    place = list(model.graph.input).index(image)
    model.graph.input[place].CopyFrom(planes)
    return model.graph.input[place]


def _shape_text(value: onnx.ValueInfoProto) -> str:
    sizes = (str(dim.dim_value or dim.dim_param or "?") for dim in value.type.tensor_type.shape.dim)
    return f"[{', '.join(sizes)}]"


def metadata(model: onnx.ModelProto, key: str) -> str:
    """Return an entry of a model's metadata; empty where there is none."""
    return next((str(entry.value) for entry in model.metadata_props if entry.key == key), "")


def _fix_size(model: onnx.ModelProto, image: onnx.ValueInfoProto, size: tuple[int, int] | None) -> None:
    """Give an input the width and height that are asked for, or else, if it is open, the metadata's.

    Ultralytics writes them as `imgsz` [height, width]. A graph of another size may allow it: running it tells.
    """
    dims = image.type.tensor_type.shape.dim[2:]
    if size is None:
        sides = re.fullmatch(r"\[(\d+), (\d+)\]", metadata(model, "imgsz"))
        if not sides or all(dim.dim_value for dim in dims):
            return
        size = int(sides[2]), int(sides[1])
    for dim, asked in zip(dims, reversed(size), strict=True):
        if dim.dim_value not in (0, asked):
            del model.graph.value_info[:]
            for value in model.graph.output:
                value.type.tensor_type.ClearField("shape")
        dim.dim_value = asked


def describe_source(
    model: onnx.ModelProto, image: onnx.ValueInfoProto, *, is_sized: bool = False, told: Normalization | None = None
) -> Source:
    """Return the outputs of a source with their values on a few images; sizes that are not inferred are measured.

    Args:
        model: the source.
        image: its input.
        is_sized: whether it was told the size of the image.
        told: how images are prepared, where somebody says so: a network gives nonsense for others.

    Raises:
        BuildError: the model does not run; the message names the operator.
    """
    height, width = (dim.dim_value for dim in image.type.tensor_type.shape.dim[2:])
    try:
        runs = probe.run(model, image.name, probe.probe_images(image, told))
    except Exception as error:  # ONNX Runtime's errors share no class
        raise BuildError(_why_it_does_not_run(error, width, height)) from error
    values = list(zip(*runs, strict=True))
    operators = frozenset(node.op_type for node in model.graph.node)
    suppresses = bool(operators & {"NonMaxSuppression", "Compress", "Unique"})
    known = zip(_inferred_shapes(model), map(_declared_shape, model.graph.output), values, strict=True)
    shapes = [_shape(inferred, declared, seen, suppresses=suppresses) for inferred, declared, seen in known]
    producers = {name: node.op_type for node in model.graph.node for name in node.output}
    named = zip(model.graph.output, shapes, values, strict=True)
    return Source(
        tuple(Output(value.name, shape, producers.get(value.name, ""), seen) for value, shape, seen in named),
        width,
        height,
        opset_of(model),
        operators,
        is_sized=is_sized,
        is_bytes=np.issubdtype(onnx.helper.tensor_dtype_to_np_dtype(image.type.tensor_type.elem_type), np.integer),
    )


def _why_it_does_not_run(error: Exception, width: int, height: int) -> str:
    words = (str(error).strip() or type(error).__name__).splitlines()[0]
    if width % STEP or height % STEP:
        near = "x".join(str(max(1, round(side / STEP)) * STEP) for side in (width, height))
        return (
            f"the model does not run at {width}x{height}: most detectors want sides that are a multiple of {STEP}, "
            f"such as --size {near} ({words})"
        )
    return (
        f"the model does not run at {width}x{height} in ONNX Runtime: {words}; if --size is not what it was exported "
        "with, export it at that size (Ultralytics: imgsz=HEIGHT,WIDTH), or with a dynamic size"
    )


def _declared_shape(value: onnx.ValueInfoProto) -> Shape:
    return tuple(dim.dim_value or None for dim in value.type.tensor_type.shape.dim)


def _shape(inferred: Shape, declared: Shape, values: tuple[NDArray[Any], ...], *, suppresses: bool) -> Shape:
    """Return the inferred shape; what is open in it is measured.

    It stays open if it varies from image to image, is 0, or depends on what a graph's suppression keeps: that is what
    the file does not say, or does not keep to, and is no table's columns.
    """
    rank = values[0].ndim
    inferred, declared = (shape if len(shape) == rank else (None,) * rank for shape in (inferred, declared))
    sizes = [{one.shape[axis] for one in values} for axis in range(rank)]
    if rank == 3 and len(sizes[2]) == 1 and sizes[2] <= COLUMNS:
        declared = (*declared[:2], *sizes[2])
    said = zip(inferred, declared, sizes, strict=True)
    inferred = tuple(size or (other if seen == {other} else None) for size, other, seen in said)
    is_open = [
        size is None and (suppresses or len(seen) > 1 or 0 in seen) for size, seen in zip(inferred, sizes, strict=True)
    ]
    return tuple(
        None if opened else size or min(seen) for size, seen, opened in zip(inferred, sizes, is_open, strict=True)
    )


def _inferred_shapes(model: onnx.ModelProto) -> list[Shape]:
    """Infer the shapes of the outputs from the inputs' shapes only."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]
    for value in bare.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        outputs = onnx.shape_inference.infer_shapes(bare, data_prop=True).graph.output
    except Exception:  # stricter than the runtimes are: then the shapes are measured
        return [() for _ in model.graph.output]
    return [_declared_shape(value) for value in outputs]
