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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from triptych.contract import MAX_ENCODED_BYTES, MAX_PIXELS
from triptych.errors import ImageError
from triptych.opencv import cv2
from triptych.vision.jpeg import MAX_SCANS, check_scans, plain_jpeg
from triptych.vision.png import read_chunks
from triptych.vision.pnm import white_of_pnm

Image.init()
FORMATS = tuple(
    name for name in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF") if name in Image.OPEN
)
"""The formats that can be read, by Pillow's names. A build of Pillow may lack the last ones."""

SUFFIXES = frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS)
"""The endings of file names that `image_files` takes for images."""

_OPENCV_FORMATS = frozenset(("JPEG", "MPO", "PNG", "WEBP", "BMP", "TIFF", "PPM"))
_EXIF_ORIENTATION = 0x0112
_BITS, _TILE_SIDES, _EXTRA_SAMPLES = 258, (322, 323), 338  # tags of TIFF
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
    check_bytes(encoded, max_bytes)
    jpeg = plain_jpeg(encoded)
    if jpeg is None:
        with _open(encoded, max_bytes, max_pixels) as image:
            header = _header(image, encoded)
            _check_tiles(image)
            for_opencv = _is_for_opencv(encoded, header, image)
    else:
        _check_pixels(jpeg.width, jpeg.height, max_pixels)
        header = Header("JPEG", jpeg.width, jpeg.height, jpeg.orientation)
        for_opencv = _is_whole(encoded, "JPEG")
    if header.format in ("JPEG", "MPO") and (jpeg is None or jpeg.scans > MAX_SCANS):
        check_scans(encoded)
    rgb = _decode_with_opencv(encoded, header) if for_opencv else None
    if rgb is None:
        with _open(encoded, max_bytes, max_pixels) as image:
            rgb = _decode_with_pillow(image)
    if rgb.shape != (header.height, header.width, 3):
        raise ImageError(
            f"the image's header says {header.width}x{header.height}, "
            f"but {rgb.shape[1]}x{rgb.shape[0]} was decoded; save it again",
            "damaged",
        )
    # Pillow rotates a TIFF as it loads it.
    return rgb if header.format == "TIFF" else _upright(rgb, header.orientation)


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


def _is_for_opencv(encoded: bytes, header: Header, image: Image.Image) -> bool:
    """Return whether OpenCV decodes a file rightly, and would notice that it ends early."""
    if header.format not in _OPENCV_FORMATS or not _is_whole(encoded, header.format) or _is_animated(encoded, header):
        return False
    if header.format != "TIFF":
        return True
    # OpenCV rotates a TIFF, but not in every way that EXIF knows, and gives colours multiplied by their alpha.
    tags = getattr(image, "tag_v2", {})
    has_alpha = _EXTRA_SAMPLES in tags or image.getbands()[-1] in "Aa"
    return header.orientation == 1 and not has_alpha and set(tags.get(_BITS, (1,))) <= {1, 8, 16}


def _decode_with_opencv(encoded: bytes, header: Header) -> NDArray[np.uint8] | None:
    """Decode to RGB; return None where OpenCV cannot."""
    white = white_of_pnm(encoded) if header.format == "PPM" else None
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    if white is not None:
        flags |= cv2.IMREAD_ANYDEPTH
    try:
        rgb = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
    except Exception:  # cv2.error, and MemoryError or SystemError from the binding
        return None
    if rgb is None or rgb.shape != (header.height, header.width, 3):
        return None
    if white is not None and rgb.dtype in (np.uint8, np.uint16):
        return _scaled(rgb, white)
    return rgb if rgb.dtype == np.uint8 else None  # type: ignore[return-value]  # the dtype was just checked


def _scaled(values: Any, white: int) -> NDArray[np.uint8]:
    """Scale values of 0 to `white` to 0..255; what is above `white` is white."""
    table = np.minimum(np.arange(np.iinfo(values.dtype).max + 1) * 255.0 / white + 0.5, 255).astype(np.uint8)
    scaled: NDArray[np.uint8] = table[values]
    return scaled


def _is_whole(encoded: bytes, image_format: str) -> bool:
    """Return whether the file's end is there. OpenCV fills a missing part with grey, so Pillow decodes such a file."""
    if image_format in ("JPEG", "MPO"):
        # Coded data never contains a marker, so an end after the last start of scan is the end of that scan.
        return encoded.endswith(b"\xff\xd9") or encoded.rfind(b"\xff\xd9") > encoded.rfind(b"\xff\xda")
    if image_format == "PNG":
        return read_chunks(encoded).whole
    return True


def _is_animated(encoded: bytes, header: Header) -> bool:
    """Return whether a file may be an animation. OpenCV 4.11 reads beyond its memory where such a file is damaged."""
    if header.format == "PNG":
        return read_chunks(encoded).animated
    return header.format == "WEBP" and (b"ANIM" in encoded or b"ANMF" in encoded)


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


def _decode_with_pillow(image: Image.Image) -> NDArray[np.uint8]:
    """Decode the first frame to RGB."""
    image.load()
    if image.mode == "I" and image.format == "TIFF":
        raise ImageError("the image has 32-bit pixels of unknown range; send 8 or 16 bits a channel", "pixel_format")
    if image.mode.startswith("I"):
        wide = np.asarray(image).astype(np.int64).clip(0, 65535).astype(np.uint16)
        bits = getattr(image, "tag_v2", {}).get(_BITS, (16,))[0]
        grey = _scaled(wide, 2**bits - 1) if bits < 16 else (wide >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode == "F":
        raise ImageError("the image has floating-point pixels; send 8 or 16 bits a channel", "pixel_format")
    return np.array(image.convert("RGB"))


def _upright(rgb: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Undo EXIF's orientation."""
    # OpenCV's transpose and flip are several times as fast as a copy of a strided view.
    if orientation >= 5:
        rgb = cv2.transpose(rgb)  # type: ignore[assignment]  # uint8 as its input
    flip = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    return rgb if flip is None else cv2.flip(rgb, flip)  # type: ignore[return-value]
