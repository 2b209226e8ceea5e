"""What users send: images as they are, or a mix of sizes; alone or in batches."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2

from triptych.errors import ContractError, ImageError
from triptych.images import decode, image_files

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
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise ContractError(f"a size must be WIDTHxHEIGHT in pixels, such as 1920x1080, but got {text!r}")
    return int(width), int(height)


def payloads(images: Sequence[bytes], batch: int = 1, sizes: Sequence[str] = ()) -> list[Payload]:
    """Requests that send every image in turn; with sizes, each image in each of them, one size after the other.

    Args:
        images: encoded; with sizes they are scaled and encoded anew as JPEG.
        batch: images in a request; a batch that begins near the end goes on with the first image.
        sizes: such as "1920x1080".

    Raises:
        ImageError: an image that is to be scaled cannot be read.
        ContractError: a size is none.
    """
    suffix = f" x{batch}" if batch > 1 else ""
    kinds = {f"detect {size}{suffix}": [_scaled(image, parse_size(size)) for image in images] for size in sizes}
    kinds = kinds or {f"detect{suffix}": list(images)}
    return [
        Payload(name, tuple(itertools.islice(itertools.cycle(kind), first, first + batch)))
        for first in range(0, len(images), batch)
        for name, kind in kinds.items()
    ]


def _scaled(image: bytes, size_wh: tuple[int, int]) -> bytes:
    pixels = cv2.resize(decode(image), size_wh, interpolation=cv2.INTER_AREA)
    written = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return bytes(written[1].tobytes())
