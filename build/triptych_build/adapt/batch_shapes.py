"""The shapes and small values in a graph at one batch size, with ONNX's own shape inference."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import onnx.defs
import onnx.helper
import onnx.numpy_helper
import onnx.reference
import onnx.shape_inference
from numpy.typing import NDArray

SMALL = 256
"""Values of at most this many elements are followed: shapes, axes and positions, not weights."""

ARITHMETIC = frozenset(
    ("Add", "Cast", "Ceil", "Concat", "Constant", "ConstantOfShape", "Div", "Equal", "Expand", "Floor", "Gather",
     "Identity", "Max", "Min", "Mod", "Mul", "Neg", "Range", "Reshape", "Shape", "Size", "Slice", "Squeeze", "Sub",
     "Tile", "Unsqueeze", "Where")
)  # fmt: skip
"""What exporters compute shapes with."""

Shape = tuple[int | None, ...]


class BatchShapes:
    """The shapes and small values of a graph's tensors, as far as they can be known for a batch of a given size."""

    def __init__(self, model: onnx.ModelProto, image: onnx.ValueInfoProto, batch: int) -> None:
        """Begin with the image and the constants; every size of the image but the batch is fixed."""
        self._opset_imports = list(model.opset_import)
        self._opsets = {
            "" if entry.domain == "ai.onnx" else entry.domain: entry.version for entry in model.opset_import
        }
        _, *sizes = (dim.dim_value for dim in image.type.tensor_type.shape.dim)
        image_type = onnx.helper.make_tensor_type_proto(image.type.tensor_type.elem_type, [batch, *sizes])
        self._types: dict[str, onnx.TypeProto] = {image.name: image_type}
        self.values: dict[str, NDArray[Any]] = {}
        for tensor in model.graph.initializer:
            self.add_constant(tensor)

    def add_constant(self, tensor: onnx.TensorProto) -> None:
        """Add an initializer; its value too, if it is small."""
        self._types[tensor.name] = onnx.helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
        if math.prod(tensor.dims) <= SMALL:
            self.values[tensor.name] = onnx.numpy_helper.to_array(tensor)

    def shape(self, name: str) -> Shape | None:
        """Return the shape of a tensor; None for the shape, or for one of its sizes, that is not known."""
        kind = self._types.get(name)
        if kind is None or not kind.tensor_type.HasField("shape"):
            return None
        return tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in kind.tensor_type.shape.dim)

    def whole_shape(self, name: str) -> tuple[int, ...] | None:
        """Return the shape of a tensor; None unless all its sizes are known."""
        sizes = self.shape(name)
        known = tuple(size for size in sizes or () if size is not None)
        return known if sizes is not None and len(known) == len(sizes) else None

    def dtype(self, name: str) -> np.dtype[Any]:
        """Return the type of a tensor whose shape is known."""
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(self._types[name].tensor_type.elem_type))

    def infer(self, node: onnx.NodeProto) -> None:
        """Follow an operator. Outputs that cannot be inferred stay unknown.

        Raises:
            onnx.shape_inference.InferenceError: its inputs do not fit together.
        """
        inputs = [name for name in node.input if name]
        if any(name not in self._types for name in inputs) or _has_subgraph(node):
            return
        try:
            schema = onnx.defs.get_schema(node.op_type, self._opsets.get(node.domain, 1), node.domain)
        except onnx.defs.SchemaError:
            return
        outputs = onnx.shape_inference.infer_node_outputs(
            schema,
            node,
            {name: self._types[name] for name in inputs},
            {name: onnx.numpy_helper.from_array(self.values[name], name) for name in inputs if name in self.values},
            opset_imports=self._opset_imports,
        )
        self._types.update(outputs)
        self._evaluate(node, inputs)

    def _evaluate(self, node: onnx.NodeProto, inputs: list[str]) -> None:
        """Compute the values of an operator's outputs, if they are small and depend only on shapes and constants."""
        if node.domain or node.op_type not in ARITHMETIC:
            return
        feeds = {name: self.values[name] for name in inputs if name in self.values}
        if node.op_type in ("Shape", "Size"):
            shape = self.whole_shape(inputs[0])
            if shape is not None:
                feeds = {inputs[0]: np.broadcast_to(np.float32(0), shape)}  # no memory, whatever the shape
        outputs = [name for name in node.output if name]
        shapes = [self.whole_shape(name) for name in outputs]
        if len(feeds) < len(set(inputs)) or any(shape is None or math.prod(shape) > SMALL for shape in shapes):
            return
        typed_inputs, typed_outputs = (
            [onnx.helper.make_value_info(name, self._types[name]) for name in names] for names in (feeds, outputs)
        )
        graph = onnx.helper.make_graph([node], "one", typed_inputs, typed_outputs)
        model = onnx.helper.make_model(graph, opset_imports=self._opset_imports)
        results = onnx.reference.ReferenceEvaluator(model).run(None, feeds)
        self.values.update(zip(outputs, map(np.asarray, results), strict=True))


def _has_subgraph(node: onnx.NodeProto) -> bool:
    return any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute)


def reshaped_batch_axis(before: tuple[int, ...], axis: int, after: tuple[int, ...], batch: int) -> int:
    """Return the axis of a Reshape's output that holds the batch, for an input whose axis `axis` holds it.

    Memory order decides: what comes before the batch in the input comes before it in the output. Where the batch may
    have an axis of its own, it gets that (the same one, if it can). Else it goes in front of the axis that begins
    there, as with attention's heads, or, in a table of rows, into the rows.

    >>> reshaped_batch_axis((1, 85, 52, 52), 0, (1, 85, 2704), 1)
    0
    >>> reshaped_batch_axis((300, 1, 256), 1, (300, 8, 32), 1)
    1
    >>> reshaped_batch_axis((300, 1, 256), 1, (300, 256), 1)
    0
    """
    low = math.prod(before[:axis])
    high = low * before[axis] // batch
    starts = [math.prod(after[:number]) for number in range(len(after))]
    own = [number for number, start in enumerate(starts) if after[number] == batch and low <= start <= high]
    if own:
        return axis if axis in own else own[0]
    fronts = [number for number, start in enumerate(starts) if start == low]
    if fronts and not (len(after) == 2 and low > 1):
        return fronts[-1]
    return max(number for number, start in enumerate(starts) if start < low or number == 0)
