"""Open the batch of a graph that was exported with a fixed one, and prove that each image's results stay the same.

Exporters write the batch into the graph as a number: into the input, the outputs, and constants such as the shape of a
Reshape. The shapes in the graph are followed at its own batch and at twice that. Where the second ones are not twice as
large, a constant holds the batch, and is rewritten. An operator that cannot be rewritten is refused by name. The
rewritten model is run on images and compared with the original.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.shape_inference
from numpy.typing import NDArray

from triptych.errors import BuildError
from triptych_build.adapt import probe
from triptych_build.adapt.batch_nodes import Additions
from triptych_build.adapt.batch_proof import find_difference
from triptych_build.adapt.batch_shapes import BatchShapes, reshaped_batch_axis

BATCH = "N"
"""The name of the open dimension."""

PAIRED = ("GatherElements", "ScatterElements", "GatherND", "ScatterND", "GridSample")
"""Operators whose inputs do not broadcast over the batch, and whose shape inference does not say so."""

WAY_OUT = "export the model with a dynamic batch (Ultralytics: dynamic=True)"


class BatchTied(BuildError):
    """A batch cannot be opened.

    Attributes:
        reason: why, in words.
    """

    def __init__(self, fixed: int, reason: str) -> None:
        super().__init__(
            f"the model's batch is fixed at {fixed} and cannot be opened: {reason}; {WAY_OUT}, or with a batch of 1"
        )
        self.reason = reason


def open_batch(model: onnx.ModelProto, image: str) -> onnx.ModelProto:
    """Return a model whose input `image` and whose outputs have a batch of any size, proven on images.

    Args:
        model: takes one image float [B, 3, H, W] with every size fixed; it is left as it is.
        image: the name of that input.

    Raises:
        BatchTied: an operator ties the batch, or the opened model's results are not the model's.
    """
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    value = next(value for value in opened.graph.input if value.name == image)
    fixed = value.type.tensor_type.shape.dim[0].dim_value
    suspect = _Walk(opened, value).open()
    del opened.graph.value_info[:]
    for end in (value, *opened.graph.output):
        for dim in end.type.tensor_type.shape.dim[:1]:
            dim.dim_param = BATCH
    reason = find_difference(model, opened, image, suspect)
    if reason:
        raise BatchTied(fixed, reason)
    return opened


def fix_untrue_batch(model: onnx.ModelProto, image: onnx.ValueInfoProto) -> str:
    """Fix an open batch at 1, in place, where two images at a time do not run, and one does.

    Exporters trace a graph with one image, and name the batch open whether or not constants hold it.

    Returns:
        Why it is no open batch, in words; empty if it is one, or none was open.
    """
    dim = image.type.tensor_type.shape.dim[0]
    if dim.dim_value:
        return ""
    first, second = probe.probe_images(image)[:2]
    both = np.concatenate([first, second])
    try:
        probe.run(model, image.name, [both])
        return ""
    except Exception as error:  # ONNX Runtime's errors share no class
        words = (str(error) or type(error).__name__).splitlines()[0]
    try:
        probe.run(model, image.name, [first])
    except Exception:  # what does not run at all is told elsewhere
        return ""
    dim.dim_value = 1
    return f"its batch is open by name only, as two images at a time do not run ({words})"


class _Walk:
    """Follows a graph from its image to its outputs and rewrites in place what holds the batch."""

    def __init__(self, model: onnx.ModelProto, image: onnx.ValueInfoProto) -> None:
        self._graph = model.graph
        self._fixed = image.type.tensor_type.shape.dim[0].dim_value
        self._one, self._two = (BatchShapes(model, image, batch) for batch in (self._fixed, 2 * self._fixed))
        self._additions = Additions(model.graph, image.name, self._fixed, (self._one, self._two))
        self._nodes = self._additions.nodes
        self._producers = {name: node for node in model.graph.node for name in node.output}
        self._suspect = ""

    def open(self) -> str:
        """Rewrite the graph, and return in words the operator to blame if its results change; empty if there is none.

        Raises:
            BatchTied: an operator ties the batch.
        """
        rewrites = {
            "Reshape": self._open_reshape,
            "Resize": self._open_resize,
            "Slice": self._open_slice,
            "Expand": self._open_expand,
        }
        for node in self._graph.node:
            try:
                self._one.infer(node)
            except onnx.shape_inference.InferenceError:
                self._nodes.append(node)  # stricter than the runtimes are: what follows is unknown
                continue
            rewrite = rewrites.get(node.op_type)
            if rewrite and not node.domain:
                rewrite(node)
            self._follow(node)
            self._nodes.append(node)
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)
        for output in self._graph.output:
            one, two = self._one.shape(output.name), self._two.shape(output.name)
            if one and two and one[0] is not None and two[0] is not None and two[0] != 2 * one[0]:
                raise self._refusal(self._suspect or f"the output {output.name} does not grow with it")
        return self._suspect

    def _refusal(self, reason: str) -> BatchTied:
        return BatchTied(self._fixed, reason)

    def _batch_axis(self, name: str) -> int | None:
        """Return the axis that grows with the batch; None if there is none, or it cannot be known."""
        one, two = self._one.shape(name), self._two.shape(name)
        if one is None or two is None or len(one) != len(two):
            return None
        axes = [axis for axis, (small, large) in enumerate(zip(one, two, strict=True)) if small != large]
        return axes[0] if len(axes) == 1 and None not in (one[axes[0]], two[axes[0]]) else None

    def _constant_value(self, name: str) -> NDArray[Any] | None:
        """Return a small value that is the same at any batch, whether a constant or computed from constants."""
        one, two = self._one.values.get(name), self._two.values.get(name)
        return one if one is not None and two is not None and np.array_equal(one, two) else None

    def _follow(self, node: onnx.NodeProto) -> None:
        """Follow an operator at the larger batch; repeat a constant for each image where it is not broadcast."""
        try:
            if node.op_type in PAIRED:
                self._repeat_constants(node)
            self._two.infer(node)
        except onnx.shape_inference.InferenceError as error:
            try:
                if not self._repeat_constants(node):
                    raise
                self._two.infer(node)
            except onnx.shape_inference.InferenceError:
                raise self._refusal(f"{_describe(node)} works for that batch only") from error
        self._check(node)

    def _check(self, node: onnx.NodeProto) -> None:
        """Remember the first operator after which the batch is no longer visible."""
        if any(len(self._one.shape(name) or ()) != len(self._two.shape(name) or ()) for name in node.output):
            raise self._refusal(f"{_describe(node)} works for that batch only")
        came, went = (any(self._batch_axis(name) is not None for name in names) for names in (node.input, node.output))
        if came and not went and node.op_type not in ("Shape", "Size") and not self._suspect:
            self._suspect = f"after {_describe(node)} the images of a batch cannot be told apart"

    def _repeat_constants(self, node: onnx.NodeProto) -> bool:
        """Repeat the inputs that all images share as often as there are images; return whether there were any."""
        repeated = False
        for carrier in list(node.input):
            axis, carried = self._batch_axis(carrier), self._one.shape(carrier)
            if axis is None or carried is None:
                continue
            for position, name in enumerate(node.input):
                shared = self._one.whole_shape(name)
                if shared is None or self._batch_axis(name) is not None:
                    continue
                at = axis - len(carried) + len(shared)  # aligned at the right, as broadcasting does
                if at < 0 or shared[at] != carried[axis]:
                    continue
                if self._fixed > 1:
                    raise self._refusal(f"{_describe(node)} takes a constant made for {self._fixed} images")
                step = self._image_step(node, position)
                if step:
                    node.input[position] = self._additions.image_numbers(shared[at], step, at, len(shared))
                else:
                    if np.issubdtype(self._one.dtype(name), np.integer):
                        self._suspect = self._suspect or f"{_describe(node)} takes indices that were made for it"
                    repeats = self._additions.sizes([1] * len(shared), at)
                    node.input[position] = self._additions.operator("Tile", [name, repeats])
                repeated = True
        return repeated

    def _image_step(self, node: onnx.NodeProto, position: int) -> int:
        """Return by how much an input of zeros would grow from image to image, had it been made for several images.

        It is 0 for most. `rows[image_number, index]` is exported in two ways: image numbers before the indices of
        GatherND, or, over a table of all images' rows, image numbers times an image's rows added to the indices of
        Gather.
        """
        value = self._constant_value(node.input[position])
        if value is None or value.any() or value.size < 1 or not np.issubdtype(value.dtype, np.integer):
            return 0
        if value.size != max(value.shape, default=0):
            return 0
        if node.op_type == "Concat":
            return int(position == 0 and value.ndim > 1 and value.shape[-1] == 1)
        product = self._producers.get(node.input[position])
        if node.op_type != "Add" or product is None or product.op_type != "Mul":
            return 0
        factors = [self._constant_value(name) for name in product.input]
        return max((int(factor.max()) for factor in factors if factor is not None and factor.size == 1), default=0)

    # --- What rewrites one operator -----------------------------------------------------------------------------------

    def _open_reshape(self, node: onnx.NodeProto) -> None:
        before, after = self._one.whole_shape(node.input[0]), self._one.whole_shape(node.output[0])
        axis, target = self._batch_axis(node.input[0]), self._constant_value(node.input[1])
        if axis is None or target is None or before is None or after is None:
            return
        at = reshaped_batch_axis(before, axis, after, self._fixed)
        wanted = [size * (1 + (number == at)) for number, size in enumerate(after)]
        try:
            self._two.infer(node)
            if list(self._two.shape(node.output[0]) or ()) == wanted:
                return
        except onnx.shape_inference.InferenceError:
            pass  # a fixed number of elements: it holds the batch
        sizes = [int(size) for size in target]
        copies = any(attribute.name == "allowzero" and attribute.i for attribute in node.attribute)
        if at == axis and after[at] == before[axis] and not copies:
            sizes[at] = 0  # as the input has it
        else:
            sizes = [*after[:at], -1, *after[at + 1 :]]
        node.input[1] = self._additions.constant(np.array(sizes, np.int64))

    def _open_resize(self, node: onnx.NodeProto) -> None:
        if len(node.input) < 4 or not node.input[3]:
            return
        axis, sizes = self._batch_axis(node.input[0]), self._constant_value(node.input[3])
        if axis is not None and sizes is not None and not any(entry.name == "axes" for entry in node.attribute):
            node.input[3] = self._additions.sizes([int(size) for size in sizes], axis)

    def _open_slice(self, node: onnx.NodeProto) -> None:
        """Let a slice from the first image to the last of the fixed batch go on to the end."""
        axis = self._batch_axis(node.input[0])
        starts, ends = (self._constant_value(name) for name in node.input[1:3])
        before, after = self._one.shape(node.input[0]), self._one.shape(node.output[0])
        if axis is None or starts is None or ends is None or before is None or after is None:
            return
        axes = self._constant_value(node.input[3]) if len(node.input) > 3 and node.input[3] else np.arange(len(starts))
        steps = self._constant_value(node.input[4]) if len(node.input) > 4 else np.ones_like(starts)
        if axes is None or steps is None:
            return
        for position, sliced in enumerate(axes):
            if sliced % len(before) == axis and before[axis] == after[axis] and steps[position] == 1:
                everything = ends.copy()
                everything[position] = np.iinfo(ends.dtype).max  # to the end, whatever the size
                node.input[2] = self._additions.constant(everything)

    def _open_expand(self, node: onnx.NodeProto) -> None:
        """Put a 1 where the batch is: it leaves the batch as it comes."""
        shape, axis = self._one.shape(node.input[0]), self._batch_axis(node.input[0])
        target = self._constant_value(node.input[1])
        if shape is None or axis is None or target is None:
            return
        at = axis - len(shape) + len(target)
        if at >= 0 and target[at] == shape[axis] != 1:
            sizes = target.copy()
            sizes[at] = 1
            node.input[1] = self._additions.constant(sizes)


def _describe(node: onnx.NodeProto) -> str:
    return f"the operator {node.op_type} {node.name or node.output[0]!r}"
