"""What users send: images as they are, or a mix of sizes; alone or in batches."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2

from triptych.contract import MAX_BATCH, MAX_PIXELS
from triptych.errors import ContractError, ImageError
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
    """The encoded images of a directory, by their names.

    Raises:
        ImageError: there are none, or no such directory.
    """
    images = [path.read_bytes() for path in image_files(directory)]
    if not images:
        raise ImageError(f"there are no images in {directory}")
    return images


def parse_size(text: str) -> tuple[int, int]:
    """`640x480` as width and height.

    Raises:
        ContractError: it is no size.
    """
    width, _, height = text.partition("x")
    if not re.fullmatch(r"[1-9]\d{0,4}x[1-9]\d{0,4}", text, re.ASCII) or int(width) * int(height) > MAX_PIXELS:
        raise ContractError(
            f"a size must be WIDTHxHEIGHT in pixels, such as 1920x1080, and at most {MAX_PIXELS:,} of them, "
            f"but got {text!r}"
        )
    return int(width), int(height)


def split_sizes(given: str | Sequence[str] | None) -> list[str]:
    """Sizes as words, from a list of arguments or from one line of a form; with commas or without.

    >>> split_sizes("640x480, 320x240"), split_sizes(["640x480"]), split_sizes(None)
    (['640x480', '320x240'], ['640x480'], [])
    """
    text = given if isinstance(given, str) else " ".join(given or ())
    return text.replace(",", " ").split()


def payloads(images: Sequence[bytes], batch: int = 1, sizes: Sequence[str] = ()) -> list[Payload]:
    """Requests that send every image in turn; with sizes, each image in each of them, one size after the other.

    Args:
        images: encoded; with sizes they are scaled and encoded anew as JPEG.
        batch: images in a request; a batch that begins near the end goes on with the first image.
        sizes: such as "1920x1080".

    Raises:
        ImageError: an image that is to be scaled cannot be read.
        ContractError: a size is none, or the server takes no such batch.
    """
    if not 1 <= batch <= MAX_BATCH:
        raise ContractError(f"a batch must be of 1 to {MAX_BATCH} images, what the server takes, but is of {batch}")
    suffix = f" x{batch}" if batch > 1 else ""
    kinds = {f"detect {size}{suffix}": _scaled(images, parse_size(size)) for size in sizes}
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
