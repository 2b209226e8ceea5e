"""What was found in one image."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from triptych.errors import ContractError
from triptych.vision.decode import decode
from triptych.vision.drawing import draw_boxes
from triptych.vision.inputs import ImageLike, check_pixels, encode_image

__all__ = ["Detection", "Detections"]


class Detection(NamedTuple):
    """One object.

    Attributes:
        name: its class.
        label: its class id.
        score: 0..1.
        box_xyxy: left, top, right and bottom in pixels of the original image, after its EXIF rotation.
    """

    name: str
    label: int
    score: float
    box_xyxy: tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Detections:
    """What was found in one image, best first.

    `len()` is the number of objects; iteration gives each as a `Detection`.

    Attributes:
        boxes_xyxy: float32 [n, 4]: left, top, right and bottom in pixels of the original image, after its EXIF
            rotation, clipped to it.
        scores: float32 [n], 0..1.
        labels: int32 [n], class ids.
        class_names: the detector's names, by class id.
        error: why the image could not be read, else empty; with an error there are no boxes.
        source: the path that the image came from, or None.
    """

    boxes_xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int32]
    class_names: tuple[str, ...]
    error: str = ""
    source: str | None = None

    def __post_init__(self) -> None:
        count = len(self.boxes_xyxy)
        if self.boxes_xyxy.shape != (count, 4) or self.scores.shape != (count,) or self.labels.shape != (count,):
            raise ContractError(
                "boxes_xyxy, scores and labels must be shape (n, 4), (n,) and (n,), "
                f"but got {self.boxes_xyxy.shape}, {self.scores.shape} and {self.labels.shape}"
            )

    @classmethod
    def failed(cls, error: str, class_names: tuple[str, ...] = (), source: str | None = None) -> Detections:
        """No detections, because of `error`."""
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

    def __repr__(self) -> str:
        what = f"error={self.error!r}" if self.error else f"{len(self)} objects"
        return f"<Detections {what}{f' in {self.source}' if self.source else ''}>"

    def to_dict(self) -> dict[str, Any]:
        """As plain values: `source`, `error`, and `detections` with `name`, `label`, `score` and `box_xyxy`."""
        return {
            "source": self.source,
            "error": self.error,
            "detections": [{**found._asdict(), "box_xyxy": list(found.box_xyxy)} for found in self],
        }

    def to_json(self, *, indent: int | None = None) -> str:
        """`to_dict` as JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False, indent=indent)

    def draw(self, image: ImageLike) -> NDArray[np.uint8]:
        """The picture with its boxes, classes and scores: a new array, uint8 [height, width, 3] in RGB.

        Args:
            image: the image itself, as a path, encoded bytes or an array (uint8, RGB [height, width, 3] or grey
                [height, width]). It must be the one that was sent: boxes are in its pixels.

        Raises:
            ImageError: the image cannot be read.
            ContractError: it is nothing that an image may be given as.
        """
        texts = [f"{name} {score:.2f}" for name, score in zip(self.names, self.scores.tolist(), strict=True)]
        return draw_boxes(_pixels(image), self.boxes_xyxy, self.labels, texts)


def _shortest(value: np.float32) -> float:
    """The float with the fewest digits that is the same float32: 0.9, not 0.8999999761581421."""
    return float(str(value))


def _pixels(image: ImageLike) -> NDArray[np.uint8]:
    if isinstance(image, (str, os.PathLike, bytes, bytearray, memoryview)):
        return decode(encode_image(image).data)
    pixels = check_pixels(image)
    return np.repeat(pixels[:, :, np.newaxis], 3, axis=2) if pixels.ndim == 2 else pixels
