"""What users send: images as they are, or a mix of sizes; alone or in batches."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from triptych.contract import MAX_BATCH, MAX_PIXELS
from triptych.errors import ContractError, ImageError
from triptych.opencv import cv2
from triptych.vision.decode import decode, image_files

JPEG_QUALITY = 92


@dataclass(frozen=True)
class Payload:
    """One request's worth of images.

    Attributes:
        name: what its requests are called in Locust's tables.
        images: encoded.
    """

    name: str
    images: tuple[bytes, ...]


def read_images(directory: Path) -> list[bytes]:
    """Return the encoded images of a directory, by their names.

    Raises:
        ImageError: there are none, or there is no such directory.
    """
    images = [path.read_bytes() for path in image_files(directory)]
    if not images:
        raise ImageError(f"there are no images in {directory}")
    return images


def parse_sizes(text: str) -> tuple[tuple[int, int], ...]:
    """Read `1920x1080,640x480` as widths and heights; `640` is a square, and an empty text holds none.

    Raises:
        ContractError: one is not a size.

    >>> parse_sizes("640x480, 320x240"), parse_sizes("")
    (((640, 480), (320, 240)), ())
    """
    parts = [part.strip() for part in text.split(",")] if text.strip() else []
    for part in parts:
        if not re.fullmatch(r"[1-9]\d{0,4}(x[1-9]\d{0,4})?", part, re.ASCII):
            raise ContractError(f"a size must be WIDTHxHEIGHT in pixels, such as 1920x1080, but got {part!r}")
    sides = [part.split("x") for part in parts]
    sizes = tuple((int(side[0]), int(side[-1])) for side in sides)
    check_sizes(sizes)
    return sizes


def check_sizes(sizes_wh: Iterable[tuple[int, int]]) -> None:
    """Refuse sizes that the server does not take.

    Raises:
        ContractError: one has too many pixels.
    """
    for width, height in sizes_wh:
        if width * height > MAX_PIXELS:
            raise ContractError(
                f"an image may have {MAX_PIXELS:,} pixels, but {width}x{height} is {width * height:,}; "
                "choose a smaller size"
            )


def check_batch(batch: int) -> None:
    """Refuse a batch that the server does not take.

    Raises:
        ContractError: it is empty or too large.
    """
    if not 1 <= batch <= MAX_BATCH:
        raise ContractError(f"a batch must be of 1 to {MAX_BATCH} images, but is of {batch}")


def payloads(images: Sequence[bytes], batch: int = 1, sizes_wh: Sequence[tuple[int, int]] = ()) -> list[Payload]:
    """Return requests that send every image in turn; with sizes, each image in one size after the other.

    Args:
        images: encoded; with sizes they are scaled and encoded again as JPEG.
        batch: images in a request; a batch that begins near the end goes on with the first image.
        sizes_wh: widths and heights.

    Raises:
        ImageError: an image that is to be scaled cannot be read.
        ContractError: the server does not take such a batch.
    """
    check_batch(batch)
    suffix = f" x{batch}" if batch > 1 else ""
    kinds = {f"detect {width}x{height}{suffix}": _scaled(images, (width, height)) for width, height in sizes_wh}
    kinds = kinds or {f"detect{suffix}": list(images)}
    return [
        Payload(name, tuple(itertools.islice(itertools.cycle(kind), first, first + batch)))
        for first in range(0, len(images), batch)
        for name, kind in kinds.items()
    ]


def _scaled(images: Sequence[bytes], size_wh: tuple[int, int]) -> list[bytes]:
    scaled = []
    for number, image in enumerate(images, start=1):
        try:
            pixels = cv2.resize(decode(image), size_wh, interpolation=cv2.INTER_AREA)
        except ImageError as error:
            raise ImageError(f"image {number} of {len(images)}, by name, cannot be scaled: {error}") from error
        bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
        scaled.append(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes())
    return scaled
