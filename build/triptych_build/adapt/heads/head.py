"""What a head is made of, and what it sees of the source; the pieces that tails share."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from triptych.contract import Placement

Order = Literal["rgb", "bgr"]
"""The order of the channels that a detector takes."""

Boxes = Literal["centers", "corners", "corners-yx"]
"""cx, cy, w, h; x1, y1, x2, y2; or y1, x1, y2, x2."""

Unit = Literal["pixels", "fractions"]
"""Boxes in pixels of the input, or in 0..1 of its width and height."""

Activation = Literal["none", "sigmoid", "softmax"]
"""What makes scores of a head's numbers."""

NoObject = Literal["none", "first", "last"]
"""Where the column stands that says that there is no object."""

Constants = dict[str, NDArray[Any]]
"""Constants of a graph, by the name that its statements use."""

SCENES = 2
"""How many sample images; each is shown dim and then bright, since a model takes 0..1 or 0..255."""

REPEATED = 1000
"""K of heads that see an object many times, and leave it to suppression: 10 candidates for each of 100 objects."""

ONCE = 300
"""K of heads that see an object once."""

MOST_QUERIES = 1000
"""More boxes than this are anchors, which see an object many times."""


def is_paddle(output: str) -> bool:
    """Return whether an output has a name as Paddle2ONNX gives them, and nobody else."""
    return bool(re.match(r"fetch_name_\d|.*\.tmp_\d", output))


@dataclass(frozen=True)
class Output:
    """An output of the source graph.

    Attributes:
        name: its name.
        shape: its sizes; one that the graph leaves open is None.
        producer: the operator that makes it.
        values: what it was on sample images, first as dim as 0..1, then as bright as 0..255.
    """

    name: str
    shape: tuple[int | None, ...]
    producer: str = ""
    values: tuple[NDArray[Any], ...] = field(default=(), compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.name} [{', '.join('?' if size is None else str(size) for size in self.shape)}]"

    @property
    def is_whole(self) -> bool:
        """Whether it holds whole numbers only."""
        return all(np.array_equal(values, np.round(values)) for values in self.values)

    @property
    def is_integer(self) -> bool:
        """Whether its type is one of whole numbers."""
        return bool(self.values) and all(np.issubdtype(values.dtype, np.integer) for values in self.values)

    def tables(self, columns_axis: int = 2) -> list[NDArray[np.float64]]:
        """Return the finite rows [M, columns] of a table [N, rows, columns], image by image.

        Rows of zeros fill up, and are none; so are rows of -1, as YOLO-NAS has them.
        """
        columns = self.shape[columns_axis] or 1
        tables = (np.moveaxis(values, columns_axis, -1).reshape(-1, columns) for values in self.values)
        return [
            np.asarray(rows[np.isfinite(rows).all(1) & rows.any(1) & (rows != -1).any(1)], np.float64)
            for rows in tables
        ]

    def rows(self, columns_axis: int = 2) -> NDArray[np.float64]:
        """Return the rows of all images."""
        return np.concatenate([np.zeros((0, self.shape[columns_axis] or 1)), *self.tables(columns_axis)])


@dataclass(frozen=True)
class Source:
    """What a head is recognised by.

    Attributes:
        outputs: what leaves the graph.
        width, height: of the input image, in pixels.
        opset: the version of ONNX's own operators.
        operators: the kinds of operators in the graph.
        classes: how many classes there may be by their names; empty without names.
        is_sized: whether the graph was told the size of the image, and gives boxes in its pixels.
        is_bytes: whether the graph takes bytes, and so normalises them itself.
    """

    outputs: tuple[Output, ...]
    width: int
    height: int
    opset: int
    operators: frozenset[str] = frozenset()
    classes: frozenset[int] = frozenset()
    is_sized: bool = False
    is_bytes: bool = False

    def __str__(self) -> str:
        return "; ".join(map(str, self.outputs))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the input image, in pixels."""
        return self.width, self.height


@dataclass(frozen=True)
class Reading:
    """How the numbers of a head are read.

    Attributes:
        boxes: what the four numbers of a box are.
        unit: what they count.
        activation: what makes scores of the head's numbers.
        no_object: where the column of "no object" stands.
    """

    boxes: Boxes
    unit: Unit
    activation: Activation = "none"
    no_object: NoObject = "none"

    def __str__(self) -> str:
        words = f"boxes are {self.boxes} in {'pixels' if self.unit == 'pixels' else '0..1'}"
        if self.activation != "none":
            words += f", scores by {self.activation}"
        return words + (f", the {self.no_object} class is no object" if self.no_object != "none" else "")


@dataclass(frozen=True)
class Normalization:
    """What the source expects of its input: `(pixel * scale - mean) / std`, channels in `order`.

    Attributes:
        order: of the channels.
        scale: factor on the pixel values 0..255.
        mean: per channel, in `order`, after the scale.
        std: per channel, in `order`, after the scale.
    """

    order: Order = "rgb"
    scale: float = 1 / 255
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __str__(self) -> str:
        words = f"scale {self.scale:.4g}"
        for name, values, neutral in (("mean", self.mean, 0), ("std", self.std, 1)):
            if any(value != neutral for value in values):
                words += f", {name} {','.join(f'{value:.4g}' for value in values)}"
        return words


IMAGENET = Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
AS_BYTES = Normalization(scale=1.0)


@dataclass(frozen=True)
class Habits:
    """What a family does unless the user says otherwise."""

    iou_threshold: float
    candidates: int = REPEATED
    normalization: Normalization = Normalization()
    placement: Placement = "center"
    pad_value: int = 114


@dataclass(frozen=True)
class Tail:
    """The graph from a source's outputs to `candidates`.

    Attributes:
        statements: its body in ONNX's textual form.
        constants: the constants that the statements name.
        candidates: K, the number of candidates for one image.
    """

    statements: str
    constants: Constants
    candidates: int


@dataclass(frozen=True)
class Head:
    """One family of heads.

    Attributes:
        name: what the user calls it (`--head NAME`).
        description: its output's layout, for messages.
        fits: returns whether a source's outputs have this layout, so that the user may choose it.
        matches: returns whether a source that fits has this head.
        read: returns how its numbers are read, by what they were on a few images.
        class_count: returns the number of classes, where the shape shows it.
        tail: returns the graph from the outputs (named `raw0`, `raw1`, …) to at most so many `candidates`.
        habits: returns the family's habits, each of which can be overridden.
    """

    name: str
    description: str
    fits: Callable[[Source], bool]
    matches: Callable[[Source], bool]
    read: Callable[[Source], Reading]
    class_count: Callable[[Source, Reading], int | None]
    tail: Callable[[Source, Reading, int], Tail]
    habits: Callable[[Source, Reading], Habits]


def reduce_max(result: str, source: str, axis: int, opset: int) -> str:
    """Return ReduceMax over one axis: its axes are an attribute up to opset 17 and an input from 18 on."""
    if opset < 18:
        return f"{result} = ReduceMax <axes = [{axis}], keepdims = 0> ({source})"
    return f"{result} = ReduceMax <keepdims = 0> ({source}, axis{axis})"


def ints(*values: int) -> NDArray[np.int64]:
    """Return a vector of whole numbers, as ONNX takes shapes, axes and positions."""
    return np.array(values, dtype=np.int64)


def positions(*places: int) -> Constants:
    """Return the positions of slices as `at0`, `at4`, …, and the axes."""
    return {f"at{place}": ints(place) for place in places} | {f"axis{axis}": ints(axis) for axis in (0, 1, 2)}


def corners(result: str, box: str, reading: Reading, source: Source) -> tuple[str, Constants]:
    """Return the statements from boxes [N, K, 4] to x1, y1, x2, y2 in pixels of the input, and their constants."""
    statements, constants = "", positions(0, 2, 4)
    if reading.unit == "fractions":
        statements += f"box_pixels = Mul ({box}, image_size)\n"
        constants["image_size"] = np.array([source.width, source.height] * 2, dtype=np.float32)
        box = "box_pixels"
    if reading.boxes == "corners-yx":
        # The sizes were those of x and y; the columns come the other way round.
        constants["x_first"] = ints(1, 0, 3, 2)
        if reading.unit == "fractions":
            constants["image_size"] = np.array([source.height, source.width] * 2, dtype=np.float32)
        return f"{statements}{result} = Gather <axis = 2> ({box}, x_first)", constants
    if reading.boxes == "corners":
        return f"{statements}{result} = Identity ({box})", constants
    constants["one_half"] = np.array(0.5, dtype=np.float32)
    return (
        f"""{statements}
        center = Slice ({box}, at0, at2, axis2)
        size = Slice ({box}, at2, at4, axis2)
        half = Mul (size, one_half)
        top_left = Sub (center, half)
        bottom_right = Add (center, half)
        {result} = Concat <axis = 2> (top_left, bottom_right)""",
        constants,
    )


def activated(result: str, logits: str, activation: Activation) -> str:
    """Return the statement that makes scores of a tensor whose last axis is the classes."""
    operator = {"none": "Identity", "sigmoid": "Sigmoid", "softmax": "Softmax <axis = -1>"}[activation]
    return f"{result} = {operator} ({logits})"
