"""Open the batch of a graph that was exported with a fixed one, and prove that each image's results stay the same.

Exporters write the batch into the graph as a number: into the input, the outputs, and the constants of Reshape and its
like. The shapes in the graph are followed at its own batch and at twice that. Where the second ones do not come out
twice as large, a constant holds the batch, and is rewritten. What cannot be rewritten is refused by name; what was
rewritten is run on images and compared with the original.
"""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import onnx.shape_inference

from triptych.errors import BuildError
from triptych_build.adapt.batch_proof import flaw
from triptych_build.adapt.batch_shapes import Shape, World

BATCH = "N"
"""The name of the open dimension."""

PAIRED = ("GatherElements", "ScatterElements", "GatherND", "ScatterND", "GridSample")
"""Operators whose inputs do not broadcast over the batch, and whose shape inference does not say so."""

WAY_OUT = (
    "export the model with a dynamic batch (Ultralytics: dynamic=True), or serve it image by image with --keep-batch"
)


def open_batch(model: onnx.ModelProto, image: str) -> onnx.ModelProto:
    """A model whose input `image` and whose outputs have a batch of any size, proven on images.

    Args:
        model: takes one image float [B, 3, H, W] with every size fixed; it is left as it is.
        image: the name of that input.

    Raises:
        BuildError: an operator ties the batch, or the opened model's results are not the model's.
    """
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    value = next(value for value in opened.graph.input if value.name == image)
    fixed = value.type.tensor_type.shape.dim[0].dim_value
    suspect = _Walk(opened, value).open()
    del opened.graph.value_info[:]
    for each in (value, *opened.graph.output):
        for dim in each.type.tensor_type.shape.dim[:1]:
            dim.dim_param = BATCH
    reason = flaw(model, opened, image, suspect)
    if reason:
        raise _refusal(fixed, reason)
    return opened


def _refusal(fixed: int, reason: str) -> BuildError:
    return BuildError(f"the model's batch is fixed at {fixed} and cannot be opened: {reason}; {WAY_OUT}")


class _Walk:
    """Follows a graph from its image to its outputs and rewrites in place what holds the batch."""

    def __init__(self, model: onnx.ModelProto, image: onnx.ValueInfoProto) -> None:
        self._graph = model.graph
        self._image = image.name
        self._fixed = image.type.tensor_type.shape.dim[0].dim_value
        self._one, self._two = (World(model, image, batch) for batch in (self._fixed, 2 * self._fixed))
        self._producers = {name: node for node in model.graph.node for name in node.output}
        self._nodes: list[onnx.NodeProto] = []
        self._made: dict[str, str] = {}
        self._suspect = ""

    def open(self) -> str:
        """Rewrite the graph; the operator to blame if its results are other ones, in words, or nothing.

        Raises:
            BuildError: an operator ties the batch.
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

    def _refusal(self, reason: str) -> BuildError:
        return _refusal(self._fixed, reason)

    def _batch_axis(self, name: str) -> int | None:
        """The axis that grows with the batch; None if there is none, or nobody can tell."""
        one, two = self._one.shape(name), self._two.shape(name)
        if one is None or two is None or len(one) != len(two):
            return None
        axes = [axis for axis, (small, large) in enumerate(zip(one, two, strict=True)) if small != large]
        return axes[0] if len(axes) == 1 and None not in (one[axes[0]], two[axes[0]]) else None

    def _constant_value(self, name: str) -> np.ndarray | None:
        """A small value that is the same at any batch, whether a constant or computed from constants."""
        one, two = self._one.values.get(name), self._two.values.get(name)
        return one if one is not None and two is not None and np.array_equal(one, two) else None

    def _follow(self, node: onnx.NodeProto) -> None:
        """Follow it at the larger batch; repeat a constant for each image where an operator does not broadcast it."""
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
                raise self._refusal(f"{_described(node)} works for that batch alone") from error
        self._check(node)

    def _check(self, node: onnx.NodeProto) -> None:
        """Remember the first operator behind which the batch cannot be seen any more."""
        if any(len(self._one.shape(name) or ()) != len(self._two.shape(name) or ()) for name in node.output):
            raise self._refusal(f"{_described(node)} works for that batch alone")
        came, went = (any(self._batch_axis(name) is not None for name in names) for names in (node.input, node.output))
        if came and not went and node.op_type not in ("Shape", "Size") and not self._suspect:
            self._suspect = f"behind {_described(node)} the images of a batch cannot be told apart"

    def _repeat_constants(self, node: onnx.NodeProto) -> bool:
        """Repeat those inputs that all images share as often as there are images; whether there were any."""
        found = False
        for carrier in list(node.input):
            axis, carried = self._batch_axis(carrier), self._one.shape(carrier)
            if axis is None or carried is None:
                continue
            for position, name in enumerate(node.input):
                shared = self._one.shape(name)
                if shared is None or self._batch_axis(name) is not None or None in shared:
                    continue
                place = axis - len(carried) + len(shared)  # aligned at the right, as broadcasting does
                if place < 0 or shared[place] != carried[axis]:
                    continue
                if self._fixed > 1:
                    raise self._refusal(f"{_described(node)} takes a constant made for {self._fixed} images")
                step = self._image_step(node, position)
                if step:
                    node.input[position] = self._image_numbers(shared[place], step, place, len(shared))
                else:
                    if np.issubdtype(self._one.dtype(name), np.integer):
                        self._suspect = self._suspect or f"{_described(node)} takes indices that were made for it"
                    repeats = self._sizes([1] * len(shared), place)
                    node.input[position] = self._emit("Tile", [name, repeats])
                found = True
        return found

    def _image_step(self, node: onnx.NodeProto, position: int) -> int:
        """By how much an input of zeros would grow from image to image, had it been made for several; 0 if not at all.

        So `rows[image_number, index]` is exported: image numbers in front of the indices of GatherND, or, over a table
        of all images' rows, image numbers times an image's rows added to the indices of Gather.
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
        before, after = self._one.shape(node.input[0]), self._one.shape(node.output[0])
        axis, target = self._batch_axis(node.input[0]), self._constant_value(node.input[1])
        if axis is None or target is None or before is None or after is None or None in (*before, *after):
            return
        place = landing(before, axis, after, self._fixed)
        wanted = [size * (1 + (number == place)) for number, size in enumerate(after)]
        try:
            self._two.infer(node)
            if list(self._two.shape(node.output[0]) or ()) == wanted:
                return
        except onnx.shape_inference.InferenceError:
            pass  # a fixed number of elements: it holds the batch
        sizes = [int(size) for size in target]
        copies = any(attribute.name == "allowzero" and attribute.i for attribute in node.attribute)
        if place == axis and after[place] == before[axis] and not copies:
            sizes[place] = 0  # as the input has it
        else:
            sizes = [*after[:place], -1, *after[place + 1 :]]
        node.input[1] = self._constant(np.array(sizes, np.int64))

    def _open_resize(self, node: onnx.NodeProto) -> None:
        if len(node.input) < 4 or not node.input[3]:
            return
        axis, sizes = self._batch_axis(node.input[0]), self._constant_value(node.input[3])
        if axis is not None and sizes is not None and not any(entry.name == "axes" for entry in node.attribute):
            node.input[3] = self._sizes([int(size) for size in sizes], axis)

    def _open_slice(self, node: onnx.NodeProto) -> None:
        """From the first image to the last of the fixed batch is all of them."""
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
                node.input[2] = self._constant(everything)

    def _open_expand(self, node: onnx.NodeProto) -> None:
        """A 1 leaves the batch as it comes."""
        shape, axis = self._one.shape(node.input[0]), self._batch_axis(node.input[0])
        target = self._constant_value(node.input[1])
        if shape is None or axis is None or target is None:
            return
        place = axis - len(shape) + len(target)
        if place >= 0 and target[place] == shape[axis] != 1:
            sizes = target.copy()
            sizes[place] = 1
            node.input[1] = self._constant(sizes)

    # --- What is put into the graph -----------------------------------------------------------------------------------

    def _sizes(self, sizes: list[int], axis: int) -> str:
        """The name of a vector of sizes that is told at run time: the size at `axis` grows with the batch."""
        batch = self._emit("Shape", [self._image])
        batch = self._emit("Slice", [batch, *(self._constant(np.array([at], np.int64)) for at in (0, 1, 0))])
        if self._fixed > 1:
            batch = self._emit("Div", [batch, self._constant(np.array([self._fixed], np.int64))])
        if sizes[axis] > 1:
            batch = self._emit("Mul", [batch, self._constant(np.array([sizes[axis]], np.int64))])
        parts = [sizes[:axis], sizes[axis + 1 :]]
        before, after = ([self._constant(np.array(part, np.int64))] if part else [] for part in parts)
        return self._emit("Concat", [*before, batch, *after], axis=0)

    def _image_numbers(self, each: int, step: int, axis: int, rank: int) -> str:
        """The name of a tensor along whose `axis` 0 comes `each` times, then `step`, then twice that, and so on."""
        number, zero, one = (self._constant(np.array(value, np.int64)) for value in (each, 0, 1))
        rows = self._emit("Squeeze", [self._sizes([each], 0), self._constant(np.array([0], np.int64))])
        images = self._emit("Div", [self._emit("Range", [zero, rows, one]), number])
        if step > 1:
            images = self._emit("Mul", [images, self._constant(np.array(step, np.int64))])
        shape = [-1 if place == axis else 1 for place in range(rank)]
        return self._emit("Reshape", [images, self._constant(np.array(shape, np.int64))])

    def _constant(self, value: np.ndarray) -> str:
        """The name of an initializer of that value."""
        key = f"{value.dtype} {value.tolist()}"
        if key not in self._made:
            name = self._made[key] = f"triptych_batch/{len(self._made)}"
            tensor = onnx.numpy_helper.from_array(value, name)
            self._graph.initializer.append(tensor)
            self._one.add_constant(tensor)
            self._two.add_constant(tensor)
        return self._made[key]

    def _emit(self, operator: str, inputs: list[str], **attributes: int) -> str:
        """The name of a new operator's output; the same operator twice is one."""
        key = f"{operator} {inputs}"
        if key not in self._made:
            name = self._made[key] = f"triptych_batch/{len(self._made)}"
            node = onnx.helper.make_node(operator, inputs, [name], name=name, **attributes)
            self._one.infer(node)
            self._two.infer(node)
            self._nodes.append(node)
        return self._made[key]


def landing(before: Shape, axis: int, after: Shape, batch: int) -> int:
    """The axis of a Reshape's output that the batch lies in, for an input whose axis `axis` holds it.

    Memory order decides: what comes before the batch in the input comes before it in the output. Where the batch may
    have an axis of its own it gets it (the same one, if it can); else it goes in front of the axis that begins there,
    as attention's heads have it, or, in a table of rows, into the rows.

    >>> landing((1, 85, 52, 52), 0, (1, 85, 2704), 1)
    0
    >>> landing((300, 1, 256), 1, (300, 8, 32), 1)
    1
    >>> landing((300, 1, 256), 1, (300, 256), 1)
    0
    """
    sizes_before, sizes = [size or 0 for size in before], [size or 0 for size in after]
    low = math.prod(sizes_before[:axis])
    high = low * sizes_before[axis] // batch
    starts = [math.prod(sizes[:place]) for place in range(len(sizes))]
    own = [place for place, start in enumerate(starts) if sizes[place] == batch and low <= start <= high]
    if own:
        return axis if axis in own else own[0]
    fronts = [place for place, start in enumerate(starts) if start == low]
    if fronts and not (len(sizes) == 2 and low > 1):
        return fronts[-1]
    return max(place for place, start in enumerate(starts) if start < low or place == 0)


def _described(node: onnx.NodeProto) -> str:
    return f"the operator {node.op_type} {node.name or node.output[0]!r}"
