"""The shapes and small values in a graph at one batch size, with ONNX's own shape inference."""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnx.defs
import onnx.helper
import onnx.numpy_helper
import onnx.reference
import onnx.shape_inference

SMALL = 256
"""Values of at most this many elements are followed: shapes, axes and positions, not weights."""

ARITHMETIC = frozenset(
    ("Add", "Cast", "Ceil", "Concat", "Constant", "ConstantOfShape", "Div", "Equal", "Expand", "Floor", "Gather",
     "Identity", "Max", "Min", "Mod", "Mul", "Neg", "Range", "Reshape", "Shape", "Size", "Slice", "Squeeze", "Sub",
     "Tile", "Unsqueeze", "Where")
)  # fmt: skip
"""What exporters compute shapes with."""

Shape = tuple[int | None, ...]


class World:
    """A graph's tensors, as far as they can be told when its image comes in a batch of one given size."""

    def __init__(self, model: onnx.ModelProto, image: onnx.ValueInfoProto, batch: int) -> None:
        """Begin with the image and the constants; every size of the image but the batch is fixed."""
        self._opset_imports = list(model.opset_import)
        self._opsets = {
            "" if entry.domain == "ai.onnx" else entry.domain: entry.version for entry in model.opset_import
        }
        _, *sizes = (dim.dim_value for dim in image.type.tensor_type.shape.dim)
        image_type = onnx.helper.make_tensor_type_proto(image.type.tensor_type.elem_type, [batch, *sizes])
        self._types: dict[str, onnx.TypeProto] = {image.name: image_type}
        self.values: dict[str, np.ndarray] = {}
        for tensor in model.graph.initializer:
            self.add_constant(tensor)

    def add_constant(self, tensor: onnx.TensorProto) -> None:
        """An initializer; its value too, if it is small."""
        self._types[tensor.name] = onnx.helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
        if math.prod(tensor.dims) <= SMALL:
            self.values[tensor.name] = onnx.numpy_helper.to_array(tensor)

    def shape(self, name: str) -> Shape | None:
        """The shape of a tensor, None where it or one of its sizes is not known."""
        found = self._types.get(name)
        if found is None or not found.tensor_type.HasField("shape"):
            return None
        return tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in found.tensor_type.shape.dim)

    def dtype(self, name: str) -> np.dtype:
        """The type of a tensor whose shape is known."""
        return onnx.helper.tensor_dtype_to_np_dtype(self._types[name].tensor_type.elem_type)

    def infer(self, node: onnx.NodeProto) -> None:
        """Follow one operator. Outputs that nobody can tell stay unknown.

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
        """The values of an operator's outputs, if they are small and depend on shapes and constants alone."""
        if node.domain or node.op_type not in ARITHMETIC:
            return
        feeds = {name: self.values[name] for name in inputs if name in self.values}
        if node.op_type in ("Shape", "Size"):
            shape = self.shape(inputs[0])
            if shape is not None and None not in shape:
                feeds = {inputs[0]: np.broadcast_to(np.float32(0), shape)}  # no memory, whatever the shape
        outputs = [name for name in node.output if name]
        sizes = [self.shape(name) for name in outputs]
        if len(feeds) < len(set(inputs)) or any(
            size is None or None in size or math.prod(size) > SMALL for size in sizes
        ):
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
