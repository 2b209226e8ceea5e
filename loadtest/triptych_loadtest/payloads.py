"""What users send: images drawn at random, as they are or in a mix of sizes; alone or in batches."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from triptych.contract import MAX_BATCH, MAX_PIXELS
from triptych.errors import ContractError, ImageError
from triptych.opencv import cv2
from triptych.vision.decode import decode, image_files

JPEG_QUALITY = 92

Item = TypeVar("Item")


@dataclass(frozen=True)
class Payload:
    """One request's worth of images.

    Attributes:
        name: what its requests are called in Locust's tables.
        images: encoded.
    """

    name: str
    images: tuple[bytes, ...]


@dataclass(frozen=True)
class Payloads:
    """What requests are drawn from.

    Attributes:
        kinds: the same images, encoded, by the name of the requests that send them so.
        batch: images in a request.
    """

    kinds: Mapping[str, Sequence[bytes]]
    batch: int

    def draw(self, random_numbers: random.Random) -> Iterator[Payload]:
        """Yield requests whose images are drawn at random, each as often as every other; the same of the kinds."""
        names = _rounds(list(self.kinds), random_numbers)
        numbers = _rounds(range(len(next(iter(self.kinds.values())))), random_numbers)
        for name in names:
            yield Payload(name, tuple(self.kinds[name][next(numbers)] for _ in range(self.batch)))


def _rounds(items: Sequence[Item], random_numbers: random.Random) -> Iterator[Item]:
    """Yield all items in one order after the other, each at random."""
    while True:
        yield from random_numbers.sample(items, len(items))


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


def payloads(images: Sequence[bytes], batch: int = 1, sizes_wh: Sequence[tuple[int, int]] = ()) -> Payloads:
    """Return what requests with these images are drawn from; with sizes, each image in each of them.

    Args:
        images: encoded; with sizes they are scaled and encoded again as JPEG.
        batch: images in a request, all of one size.
        sizes_wh: widths and heights.

    Raises:
        ImageError: an image that is to be scaled cannot be read.
        ContractError: the server does not take such a batch.
    """
    check_batch(batch)
    suffix = f" x{batch}" if batch > 1 else ""
    kinds = {f"detect {width}x{height}{suffix}": _scaled(images, (width, height)) for width, height in sizes_wh}
    return Payloads(kinds or {f"detect{suffix}": list(images)}, batch)


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
