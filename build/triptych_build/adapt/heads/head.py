"""What a head is made of, and what it sees of the source; the pieces that tails share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from triptych.contract import Placement

Order = Literal["rgb", "bgr"]
"""The order of the channels that a detector takes."""

Constants = dict[str, NDArray[Any]]
"""Constants of a graph, by the name that its statements use."""

STRIDES = (8, 16, 32)

REPEATED = 1000
"""K of heads that see an object many times, and leave it to suppression: 10 candidates for each of 100 objects."""

ONCE = 300
"""K of heads that see an object once."""


@dataclass(frozen=True)
class Output:
    """An output of the source graph.

    Attributes:
        name: its name.
        shape: its sizes; one that the graph leaves open is None.
        producer: the operator that makes it.
    """

    name: str
    shape: tuple[int | None, ...]
    producer: str = ""

    def __str__(self) -> str:
        return f"{self.name} [{', '.join('?' if size is None else str(size) for size in self.shape)}]"


@dataclass(frozen=True)
class Source:
    """What a head is recognised by: the outputs, the size of the input image, the graph's opset and its operators."""

    outputs: tuple[Output, ...]
    width: int
    height: int
    opset: int
    operators: frozenset[str] = frozenset()

    @property
    def cells(self) -> int:
        """Cells of the grids of stride 8, 16 and 32 that most convolutional detectors predict from."""
        return sum((self.width // stride) * (self.height // stride) for stride in STRIDES)


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


@dataclass(frozen=True)
class Head:
    """One family of heads.

    Attributes:
        name: what the user calls it (`--head NAME`).
        description: its output's layout, for messages.
        matches: returns whether a source has this head.
        class_count: returns the number of classes in a source that matches, where its shape shows it.
        tail: returns the graph from the outputs (named `raw0`, `raw1`, …) to at most so many `candidates`.
        candidates, normalization, placement, pad_value, iou_threshold: the family's habits, each of which can be
            overridden.
    """

    name: str
    description: str
    matches: Callable[[Source], bool]
    class_count: Callable[[Source], int | None]
    tail: Callable[[Source, int], Tail]
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


def reduce_max(result: str, source: str, axis: int, opset: int) -> str:
    """Return ReduceMax over one axis: its axes are an attribute up to opset 17 and an input from 18 on."""
    if opset < 18:
        return f"{result} = ReduceMax <axes = [{axis}], keepdims = 0> ({source})"
    return f"{result} = ReduceMax <keepdims = 0> ({source}, axis{axis})"


def ints(*values: int) -> NDArray[np.int64]:
    """Return a vector of whole numbers, as ONNX takes shapes, axes and positions."""
    return np.array(values, dtype=np.int64)


def constants_of(*positions: int, **others: NDArray[Any]) -> Constants:
    """Return the positions of slices as `at0`, `at4`, …, the axes, and whatever else a tail names."""
    axes = {f"axis{axis}": ints(axis) for axis in (1, 2)}
    return {f"at{position}": ints(position) for position in positions} | axes | others


HALF = np.array(0.5, dtype=np.float32)

CORNERS = """
        half = Mul (size, one_half)
        top_left = Sub (center, half)
        bottom_right = Add (center, half)"""
