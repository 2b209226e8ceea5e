"""The constants and operators that opening a batch puts into a graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
from numpy.typing import NDArray

from triptych_build.adapt.batch_shapes import BatchShapes


class Additions:
    """Adds to a graph what depends on the batch; the same constant or operator is added once."""

    def __init__(self, graph: onnx.GraphProto, image: str, fixed: int, shapes: tuple[BatchShapes, BatchShapes]) -> None:
        """Add initializers to `graph` and collect operators in `nodes`.

        Args:
            graph: the graph whose batch is opened.
            image: the name of its input.
            fixed: the batch that it was exported with.
            shapes: its tensors at two batches, which follow what is added.
        """
        self.nodes: list[onnx.NodeProto] = []
        self._graph = graph
        self._image = image
        self._fixed = fixed
        self._shapes = shapes
        self._names: dict[str, str] = {}

    def constant(self, value: NDArray[Any]) -> str:
        """Return the name of an initializer of that value."""
        key = f"{value.dtype} {value.tolist()}"
        if key not in self._names:
            name = self._names[key] = f"triptych_batch/{len(self._names)}"
            tensor = onnx.numpy_helper.from_array(value, name)
            self._graph.initializer.append(tensor)
            for shapes in self._shapes:
                shapes.add_constant(tensor)
        return self._names[key]

    def operator(self, kind: str, inputs: list[str], **attributes: int) -> str:
        """Return the name of a new operator's output."""
        key = f"{kind} {inputs}"
        if key not in self._names:
            name = self._names[key] = f"triptych_batch/{len(self._names)}"
            node = onnx.helper.make_node(kind, inputs, [name], name=name, **attributes)
            for shapes in self._shapes:
                shapes.infer(node)
            self.nodes.append(node)
        return self._names[key]

    def sizes(self, sizes: list[int], axis: int) -> str:
        """Return the name of a vector of sizes that is computed at run time: the one at `axis` grows with the batch."""
        batch = self.operator("Shape", [self._image])
        batch = self.operator("Slice", [batch, *(self._vector(at) for at in (0, 1, 0))])
        if self._fixed > 1:
            batch = self.operator("Div", [batch, self._vector(self._fixed)])
        if sizes[axis] > 1:
            batch = self.operator("Mul", [batch, self._vector(sizes[axis])])
        before, after = ([self._vector(*part)] if part else [] for part in (sizes[:axis], sizes[axis + 1 :]))
        return self.operator("Concat", [*before, batch, *after], axis=0)

    def image_numbers(self, repeats: int, step: int, axis: int, rank: int) -> str:
        """Return the name of a tensor along whose `axis` 0 comes `repeats` times, then `step`, then twice that, …"""
        number, zero, one = (self.constant(np.array(value, np.int64)) for value in (repeats, 0, 1))
        rows = self.operator("Squeeze", [self.sizes([repeats], 0), self._vector(0)])
        images = self.operator("Div", [self.operator("Range", [zero, rows, one]), number])
        if step > 1:
            images = self.operator("Mul", [images, self.constant(np.array(step, np.int64))])
        return self.operator("Reshape", [images, self._vector(*(-1 if at == axis else 1 for at in range(rank)))])

    def _vector(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))
