"""Which images a GPU decodes, and how the others join them in the same batch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from triptych.contract import GEOMETRY_FIELDS, MAX_ENCODED_BYTES, MAX_PIXELS, DetectorSpec
from triptych.vision.decoders import is_whole
from triptych.vision.jpeg import is_quick, is_usual, plain_jpeg
from triptych.vision.letterbox import (
    Apart,
    Geometry,
    OnFault,
    Preprocessed,
    factor,
    letterbox_geometry,
    preprocess,
)

_LOG = logging.getLogger(__name__)


class Picture(Protocol):
    """A decoded image in the GPU's memory, RGB."""

    @property
    def width(self) -> int:
        """In pixels."""

    @property
    def height(self) -> int:
        """In pixels."""


class Placed(NamedTuple):
    """A picture of the card, and where it goes in its canvas."""

    picture: Any
    geometry: Geometry


class Sheet(NamedTuple):
    """The canvases of one request that are to be filled on the GPU.

    Attributes:
        placed: pictures to letterbox, by canvas.
        given: pixels from the CPU, uint8 [H, W, 3], for all other canvases.
    """

    placed: Mapping[int, Placed]
    given: Mapping[int, NDArray[np.uint8]]


class Card(Protocol):
    """What a GPU does here; `nvidia.NvidiaCard` is one."""

    def decode(self, encoded: Sequence[bytes]) -> Sequence[Picture | None]:
        """Decode JPEGs together; None for what it cannot decode. Each is decoded as it would be alone."""

    def fill(self, sheets: Sequence[Sheet]) -> Sequence[Any]:
        """Return the pixels of each sheet, uint8 [n, H, W, 3], as objects that have `__dlpack__`.

        They are complete when this returns, and live as long as the object or its capsule.
        """


class Request(NamedTuple):
    """The images of one request, and what holds for it alone; see `letterbox.preprocess`."""

    images: Sequence[bytes]
    apart: Apart | None = None
    on_fault: OnFault | None = None


class GpuDecoder:
    """Preprocesses requests as `letterbox.preprocess` does, with the usual JPEGs on a GPU.

    What a GPU decodes depends on the file alone, and so do its bits. All else is decoded the CPU's way, with the same
    errors and limits: other formats, JPEGs that are rotated, of rare colours, broken or beyond a limit, those that a
    detector wants decoded to fewer pixels, and whatever the GPU fails at. All pixels go to the GPU's memory: the
    detector refuses those that do not come from there (see `serving.decoding`).
    """

    def __init__(
        self,
        card: Card,
        spec: DetectorSpec,
        *,
        max_bytes: int = MAX_ENCODED_BYTES,
        max_pixels: int = MAX_PIXELS,
        on_decoded: Callable[[int], None] = lambda _count: None,
    ) -> None:
        """Prepare.

        Args:
            card: the GPU.
            spec: the detector's size and letterbox, which the card has too.
            max_bytes: the limit on each image's bytes.
            max_pixels: the limit on each image's pixels.
            on_decoded: called with the number of images that the GPU has decoded.
        """
        self._card, self._spec = card, spec
        self._max_bytes, self._max_pixels = max_bytes, max_pixels
        self._on_decoded = on_decoded
        self._has_failed = False

    def preprocess(self, requests: Sequence[Request]) -> list[Preprocessed]:
        """Decode and letterbox the images of several requests together.

        The pixels of each are in the GPU's memory, as an object with `__dlpack__`, whoever has decoded them.

        Raises:
            Exception: the GPU's memory does not take the pixels; of any kind, as CUDA's packages have it.
        """
        placed = self._decode(requests)
        by_cpu = [self._on_cpu(request, rows) for request, rows in zip(requests, placed, strict=True)]
        sheets = [Sheet(rows, part.by_row()) for rows, part in zip(placed, by_cpu, strict=True)]
        filled = self._card.fill(sheets)
        self._on_decoded(sum(map(len, placed)))
        return list(map(_joined, by_cpu, placed, filled))

    def _decode(self, requests: Sequence[Request]) -> list[dict[int, Placed]]:
        """Return for each request what the GPU has decoded, by row."""
        placed: list[dict[int, Placed]] = [{} for _ in requests]
        chosen = [
            (rows, row, encoded, size)
            for rows, request in zip(placed, requests, strict=True)
            for row, encoded in enumerate(request.images)
            if (size := self._size_for_gpu(encoded))
        ]
        if not chosen:
            return placed
        try:
            pictures = self._card.decode([encoded for _, _, encoded, _ in chosen])
        except Exception:
            if not self._has_failed:
                _LOG.exception("the GPU does not decode images at the moment, so the CPU does")
            self._has_failed = True
            return placed
        self._has_failed = False
        for (rows, row, _, size), picture in zip(chosen, pictures, strict=True):
            if picture is not None and (picture.width, picture.height) == size:
                spec = self._spec
                rows[row] = Placed(picture, letterbox_geometry(*size, spec.width, spec.height, spec.placement))
        return placed

    def _size_for_gpu(self, encoded: bytes) -> tuple[int, int] | None:
        """Return the width and height of an image that the GPU decodes; None for others. Its file alone decides."""
        jpeg = plain_jpeg(encoded) if len(encoded) <= self._max_bytes else None
        if jpeg is None or jpeg.orientation != 1 or not 0 < jpeg.width * jpeg.height <= self._max_pixels:
            return None
        is_safe = is_usual(encoded) and is_quick(encoded) and is_whole(encoded, "JPEG")
        return jpeg[:2] if is_safe and factor(*jpeg[:2], self._spec) == 1 else None

    def _on_cpu(self, request: Request, without: Collection[int]) -> _Part:
        """Preprocess the rows of a request that are not among these."""
        rows = [row for row in range(len(request.images)) if row not in without]
        images = [request.images[row] for row in rows]
        limits = {"max_bytes": self._max_bytes, "max_pixels": self._max_pixels}
        return _Part(rows, preprocess(images, self._spec, **limits, apart=request.apart, on_fault=request.on_fault))


class _Part(NamedTuple):
    """Some rows of a request, preprocessed."""

    rows: list[int]
    made: Preprocessed

    def by_row(self) -> dict[int, NDArray[np.uint8]]:
        return dict(zip(self.rows, self.made.pixels, strict=True))


def _joined(by_cpu: _Part, by_gpu: Mapping[int, Placed], pixels: Any) -> Preprocessed:
    """Return all rows of a request in their order, with these pixels."""
    count = len(by_cpu.rows) + len(by_gpu)
    geometry, errors = np.zeros((count, len(GEOMETRY_FIELDS)), np.float32), [""] * count
    for row, placed in by_gpu.items():
        geometry[row] = placed.geometry
    geometry[by_cpu.rows] = by_cpu.made.geometry
    for row, error in zip(by_cpu.rows, by_cpu.made.errors, strict=True):
        errors[row] = error
    return Preprocessed(pixels, geometry, errors)
