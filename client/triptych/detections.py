"""The objects in one image, as a client gets them."""

from __future__ import annotations

import json
import os
import reprlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from triptych.contract import Truncated
from triptych.errors import ContractError
from triptych.vision.decode import decode
from triptych.vision.drawing import draw_boxes
from triptych.vision.inputs import ImageLike, check_pixels, encode_image

if TYPE_CHECKING:
    import supervision

__all__ = ["Detection", "Detections"]

Index = int | slice | Sequence[int] | Sequence[bool] | NDArray[np.bool_] | NDArray[np.integer[Any]]
"""What chooses rows of `Detections`."""


class Detection(NamedTuple):
    """One object.

    Attributes:
        name: the name of its class.
        label: the id of its class.
        score: 0..1.
        box_xyxy: left, top, right and bottom in pixels of the original image, after its EXIF rotation.
    """

    name: str
    label: int
    score: float
    box_xyxy: tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Detections:
    """The objects in one image, best first.

    `len()` is their number, and iteration gives each as a `Detection`. An index, a slice or a mask gives the chosen
    objects as `Detections`, as in the library supervision::

        sure = detections[detections.scores > 0.5]
        best_three = detections[:3]

    Attributes:
        boxes_xyxy: float32 [n, 4]: left, top, right and bottom in pixels of the original image, after its EXIF
            rotation, clipped to it.
        scores: float32 [n], 0..1.
        labels: int32 [n], class ids.
        class_names: the names of the detector's classes, by id.
        error: why the image could not be read, else empty. With an error there are no objects.
        source: the path that the image came from, or None.
        truncated: what cut the answer off, see `contract.Truncated`: with it, objects may be missing.
    """

    boxes_xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int32]
    class_names: tuple[str, ...]
    error: str = ""
    source: str | None = None
    truncated: Truncated = Truncated(0)  # noqa: RUF009  # immutable

    def __post_init__(self) -> None:
        count = len(self.boxes_xyxy)
        if self.boxes_xyxy.shape != (count, 4) or self.scores.shape != (count,) or self.labels.shape != (count,):
            raise ContractError(
                "boxes_xyxy, scores and labels must be shape (n, 4), (n,) and (n,), "
                f"but got {self.boxes_xyxy.shape}, {self.scores.shape} and {self.labels.shape}"
            )

    @classmethod
    def failed(cls, error: str, class_names: tuple[str, ...] = (), source: str | None = None) -> Detections:
        """Return detections without objects, because of `error`."""
        nothing = np.zeros(0, np.float32)
        return cls(nothing.reshape(0, 4), nothing, np.zeros(0, np.int32), class_names, error, source)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The class name of each object."""
        return tuple(self.class_names[label] for label in self.labels.tolist())

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Detection]:
        rows = zip(self.names, self.labels.tolist(), self.scores, self.boxes_xyxy, strict=True)
        for name, label, score, box in rows:
            x1, y1, x2, y2 = map(_shortest, box)
            yield Detection(name, label, _shortest(score), (x1, y1, x2, y2))

    def __getitem__(self, index: Index) -> Detections:
        """Return the chosen objects, in the order of `index`.

        Args:
            index: an integer, which gives `Detections` of one object; a slice; a mask, bool [n]; or a list or an array
                of integers. Negative integers count from the end.

        Raises:
            IndexError: there is no object of that number.
            ContractError: the index is something else, or a mask of another length.
        """
        rows = _rows(index, len(self))
        return replace(self, boxes_xyxy=self.boxes_xyxy[rows], scores=self.scores[rows], labels=self.labels[rows])

    def __repr__(self) -> str:
        content = f"error={self.error!r}" if self.error else f"{len(self)} objects"
        return f"<Detections {content}{f' in {self.source}' if self.source else ''}>"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values: `source`, `error`, `truncated` and `detections`.

        `truncated` names what cut the answer off: "candidates", "rows", both or nothing. Each of `detections` has
        `name`, `label`, `score` and `box_xyxy`.
        """
        return {
            "source": self.source,
            "error": self.error,
            "truncated": self.truncated.names,
            "detections": [{**detection._asdict(), "box_xyxy": list(detection.box_xyxy)} for detection in self],
        }

    def to_json(self, *, indent: int | None = None) -> str:
        """Return `to_dict` as JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False, indent=indent)

    def to_supervision(self) -> supervision.Detections:
        """Return the objects as `supervision.Detections`, with the names of their classes in `data["class_name"]`."""
        from supervision import Detections as SupervisionDetections  # slow to import, and few programs need it

        return SupervisionDetections(
            xyxy=self.boxes_xyxy.copy(),
            confidence=self.scores.copy(),
            class_id=self.labels.astype(int),
            data={"class_name": np.array(self.names, dtype=np.str_)},
        )

    def draw(self, image: ImageLike) -> NDArray[np.uint8]:
        """Draw boxes, classes and scores on the image; return a new array, uint8 [height, width, 3] in RGB.

        Args:
            image: the image that was sent, because the boxes are in its pixels: a path, encoded bytes or an array
                (uint8, RGB [height, width, 3] or grey [height, width]).

        Raises:
            ImageError: the image cannot be read.
            ContractError: the value is not of a type or shape that an image can have.
        """
        texts = [f"{name} {score:.2f}" for name, score in zip(self.names, self.scores.tolist(), strict=True)]
        return draw_boxes(_pixels(image), self.boxes_xyxy, self.labels, texts)


def _rows(index: Any, count: int) -> Any:
    """Return what NumPy takes to choose rows of `count`, once it is sure that `index` can choose them."""
    if isinstance(index, slice):
        return index
    try:
        rows = np.atleast_1d(np.asarray(index))
    except ValueError:  # lists of different lengths
        rows = np.empty(0, object)
    if isinstance(index, (list, tuple)) and not index:
        rows = rows.astype(np.intp)
    is_mask = rows.dtype == np.bool_ and rows.shape == (count,) and np.ndim(index) == 1
    is_integers = rows.dtype.kind in "iu" and rows.ndim == 1
    if not is_mask and not is_integers:
        came = f"{rows.dtype} {list(rows.shape)}" if isinstance(index, np.ndarray) else reprlib.repr(index)
        raise ContractError(
            f"detections are chosen by an integer, a slice, a mask bool [{count}] or integers, but got {came}"
        )
    for row in rows.tolist() if is_integers else ():
        if not -count <= row < count:
            raise IndexError(f"there is no object {row}: the detections have {count} objects, counted from 0")
    return rows


def _shortest(value: np.float32) -> float:
    """Return the shortest decimal that is the same float32: 0.9, not 0.8999999761581421."""
    return float(str(value))


def _pixels(image: ImageLike) -> NDArray[np.uint8]:
    if isinstance(image, (str, os.PathLike, bytes, bytearray, memoryview)):
        return decode(encode_image(image).data)
    pixels = check_pixels(image)
    return np.repeat(pixels[:, :, np.newaxis], 3, axis=2) if pixels.ndim == 2 else pixels
