"""Encoded images to pixels: formats, headers, limits, decoding.

The pixels are always uint8 RGB. Grey is replicated, alpha is dropped (not blended), 16 bits keep their high byte, other
ranges are scaled to 255, CMYK is converted, an animation gives its first frame, and EXIF's rotation is applied. A file
that ends early is refused.

The header is read first. That costs 0.03 ms and decodes nothing, so a decompression bomb is refused before it goes off.
OpenCV decodes what it can, because it is faster. Pillow decodes the rest, and what OpenCV is known to crash on.
"""

from __future__ import annotations

import io
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from triptych.contract import MAX_ENCODED_BYTES, MAX_PIXELS
from triptych.errors import ImageError
from triptych.opencv import cv2
from triptych.vision.decoders import is_for_opencv, is_whole, with_opencv, with_pillow
from triptych.vision.jpeg import MAX_SCANS, check_scans, plain_jpeg
from triptych.vision.png import read_chunks

Image.init()
FORMATS = tuple(
    name for name in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF") if name in Image.OPEN
)
"""The formats that can be read, by Pillow's names. A build of Pillow may lack the last ones."""

SUFFIXES = frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS)
"""The endings of file names that `image_files` takes for images."""

_EXIF_ORIENTATION = 0x0112
_TILE_SIDES = (322, 323)  # tags of TIFF
_SPARE_TILE_PIXELS = 4096 * 4096  # a small picture may lie in one large tile

# Warning filters belong to the process. Threads that leave `catch_warnings` out of order would leave "ignore" behind.
_PILLOW_LOCK = threading.RLock()


class Header(NamedTuple):
    """What an image's header says.

    Attributes:
        format: one of `FORMATS`.
        width: in pixels, as the file stores it; that of a TIFF is upright.
        height: the same for the height.
        orientation: EXIF's, 1..8, and 1 where there is none.
    """

    format: str
    width: int
    height: int
    orientation: int

    @property
    def upright(self) -> tuple[int, int]:
        """The width and the height after EXIF's rotation."""
        lies = self.orientation >= 5 and self.format != "TIFF"
        return (self.height, self.width) if lies else (self.width, self.height)


class Decoded(NamedTuple):
    """An image that was decoded.

    Attributes:
        rgb: uint8 [height, width, 3], rotated as EXIF says; both sides may be fewer than the image's own.
        width: of the image itself, in pixels.
        height: the same for the height.
    """

    rgb: NDArray[np.uint8]
    width: int
    height: int


def image_files(directory: Path) -> list[Path]:
    """Return the image files of a directory, sorted; the endings of their names decide, and hidden files are none.

    Raises:
        ImageError: there is no such directory.
    """
    if not directory.is_dir():
        raise ImageError(f"there is no directory {directory}")
    return sorted(
        path
        for path in directory.iterdir()
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def read_header(encoded: bytes, *, max_bytes: int = MAX_ENCODED_BYTES, max_pixels: int = MAX_PIXELS) -> Header:
    """Read an image's header and check its size against the limits, without decoding the image.

    Raises:
        ImageError: the image is empty, of no known format, or larger than the limits.
    """
    check_bytes(encoded, max_bytes)
    if jpeg := plain_jpeg(encoded):
        _check_pixels(jpeg.width, jpeg.height, max_pixels)
        return Header("JPEG", jpeg.width, jpeg.height, jpeg.orientation)
    with _open(encoded, max_bytes, max_pixels) as image:
        return _header(image, encoded)


def decode(encoded: bytes, *, max_bytes: int = MAX_ENCODED_BYTES, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Decode an image to RGB.

    Args:
        encoded: the file's bytes.
        max_bytes: the limit on their number.
        max_pixels: the limit on width times height, checked before anything is decoded.

    Returns:
        uint8 [height, width, 3], rotated as EXIF says.

    Raises:
        ImageError: the image cannot be read, ends early, or is larger than the limits. No other error is raised.
    """
    return decode_reduced(encoded, lambda _width, _height: 1, max_bytes=max_bytes, max_pixels=max_pixels).rgb


def decode_reduced(
    encoded: bytes,
    factor_of: Callable[[int, int], int],
    *,
    max_bytes: int = MAX_ENCODED_BYTES,
    max_pixels: int = MAX_PIXELS,
) -> Decoded:
    """Decode an image to RGB, and a JPEG to fewer pixels than it has, which is faster.

    Args:
        encoded: the file's bytes.
        factor_of: what the sides of a JPEG of this (width, height), upright, are divided by: 1, 2, 4 or 8.
        max_bytes: the limit on their number.
        max_pixels: the limit on width times height, checked before anything is decoded.

    Raises:
        ImageError: as `decode` does.
    """
    check_bytes(encoded, max_bytes)
    jpeg = plain_jpeg(encoded)
    if jpeg is None:
        with _open(encoded, max_bytes, max_pixels) as image:
            header = _header(image, encoded)
            _check_tiles(image)
            for_opencv = is_for_opencv(encoded, header, image)
    else:
        _check_pixels(jpeg.width, jpeg.height, max_pixels)
        header = Header("JPEG", jpeg.width, jpeg.height, jpeg.orientation)
        for_opencv = is_whole(encoded, "JPEG")
    is_jpeg = header.format in ("JPEG", "MPO")
    if is_jpeg and (jpeg is None or jpeg.scans > MAX_SCANS):
        check_scans(encoded)
    rgb = with_opencv(encoded, header, factor_of(*header.upright) if is_jpeg else 1) if for_opencv else None
    if rgb is None:
        with _open(encoded, max_bytes, max_pixels) as image:
            rgb = with_pillow(image)
        if rgb.shape != (header.height, header.width, 3):
            raise ImageError(
                f"the image's header says {header.width}x{header.height}, "
                f"but {rgb.shape[1]}x{rgb.shape[0]} was decoded; save it again",
                "damaged",
            )
    # Pillow rotates a TIFF as it loads it.
    return Decoded(rgb if header.format == "TIFF" else _upright(rgb, header.orientation), *header.upright)


def check_bytes(encoded: bytes, max_bytes: int) -> None:
    """Refuse an image of no bytes, or of more than `max_bytes`.

    Raises:
        ImageError: it is one of these.
    """
    if not encoded:
        raise ImageError("the image is empty (0 bytes); send an encoded image", "empty")
    if len(encoded) > max_bytes:
        raise ImageError(
            f"the image has {len(encoded)} bytes, more than the limit of {max_bytes}; compress it more", "encoded_bytes"
        )


@contextmanager
def _open(encoded: bytes, max_bytes: int, max_pixels: int) -> Iterator[Image.Image]:
    """Open the image without decoding it, and turn whatever fails inside the block into an `ImageError`."""
    check_bytes(encoded, max_bytes)
    try:
        # Pillow warns of flaws that do not stop it, such as broken EXIF, and of images above a limit that is not ours.
        with _PILLOW_LOCK, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
                _check_pixels(*image.size, max_pixels)
                yield image
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(
            f"the {len(encoded)} bytes cannot be read as an image; send one of {', '.join(FORMATS)}", "format"
        ) from error
    except Image.DecompressionBombError as error:  # only its message has the number of pixels
        number = re.search(r"\d+", str(error))
        size = f"{number[0] if number else 'far too many'} pixels"
        raise ImageError(_too_many_pixels(size, max_pixels), "pixels") from error
    except MemoryError as error:
        raise ImageError("the image takes more memory to decode than is allowed; send it smaller", "memory") from error
    except Exception as error:  # decoders of ten formats fail in more ways than can be listed
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ImageError(f"the image is damaged or ends early ({reason}); save it again", "damaged") from error


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageError(_too_many_pixels(f"{width * height} pixels ({width}x{height})", max_pixels), "pixels")


def _too_many_pixels(size: str, max_pixels: int) -> str:
    return f"the image has {size}, more than the limit of {max_pixels}; send it smaller"


def _header(image: Image.Image, encoded: bytes) -> Header:
    # Pillow's method for PNG decodes the whole image to look for EXIF behind it, which few files have.
    late = image.format == "PNG" and read_chunks(encoded).late_exif
    try:
        exif = image.getexif() if late else Image.Image.getexif(image)
        orientation = exif.get(_EXIF_ORIENTATION, 1)
    except Exception:  # the pixels may be fine where EXIF is broken
        orientation = 1
    return Header(
        image.format or "", *image.size, orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1
    )


def _check_tiles(image: Image.Image) -> None:
    """Refuse a TIFF whose tiles are much larger than the picture: a decoder allocates and fills whole ones."""
    if image.format != "TIFF":
        return
    tags = getattr(image, "tag_v2", {})
    width, height = image.size
    tile_width, tile_height = (tags.get(tag, side) for tag, side in zip(_TILE_SIDES, (width, height), strict=True))
    stored = -(-width // tile_width) * tile_width * -(-height // tile_height) * tile_height
    if stored > 2 * width * height + _SPARE_TILE_PIXELS:
        raise ImageError(
            f"the image of {width}x{height} has tiles of {tile_width}x{tile_height}; save it again, without tiles",
            "tiles",
        )


def _upright(rgb: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Undo EXIF's orientation."""
    # OpenCV's transpose and flip are several times as fast as a copy of a strided view.
    if orientation >= 5:
        rgb = cv2.transpose(rgb)  # type: ignore[assignment]  # uint8 as its input
    flip = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    return rgb if flip is None else cv2.flip(rgb, flip)  # type: ignore[return-value]
