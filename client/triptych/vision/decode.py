"""Encoded images to the detector's pixels: header, decode, letterbox.

What comes out is always uint8 RGB. The rules: grey is replicated, alpha is dropped (not blended), 16 bits keep their
high byte, CMYK is converted, an animation gives its first frame, and EXIF's rotation is applied. A file that ends
early is refused: half a picture is no picture.

Pillow reads the header, which costs 0.03 ms and decodes nothing, so that a bomb is refused before it goes off.
OpenCV decodes what it can, because it is faster; Pillow decodes the rest.
"""

from __future__ import annotations

import io
import re
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from triptych.contract import GEOMETRY_FIELDS, MAX_ENCODED_BYTES, MAX_PIXELS, DetectorSpec, Placement
from triptych.errors import ImageError

Image.init()
FORMATS = tuple(
    name for name in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF") if name in Image.OPEN
)
"""Formats that are read, by Pillow's names (a build of Pillow may lack the last ones)."""

SUFFIXES = frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS)
"""File names that `image_files` takes for images."""

_OPENCV_FORMATS = frozenset(("JPEG", "MPO", "PNG", "WEBP", "BMP", "TIFF", "PPM"))
_EXIF_ORIENTATION = 0x0112
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # the markers that carry the size
_JPEG_EXIF_OR_XMP = 0xE1
_EXIF_BEHIND_PIXELS = b"late"

# Warning filters belong to the process: threads that leave `catch_warnings` out of order would leave "ignore" behind.
_PILLOW_LOCK = threading.RLock()

# A file that cannot be read is reported once, by us.
cv2.setLogLevel(0)


class Header(NamedTuple):
    """What an image's header says.

    Attributes:
        format: one of `FORMATS`.
        width: in pixels, as stored (a TIFF's: upright).
        height: likewise.
        orientation: EXIF's, 1..8; 1 where there is none.
    """

    format: str
    width: int
    height: int
    orientation: int


class Geometry(NamedTuple):
    """How an image lies in the letterbox: x_letterbox = x * scale_x + pad_left, likewise y. See `GEOMETRY_FIELDS`."""

    scale_x: float
    scale_y: float
    pad_left: float
    pad_top: float
    width: float
    height: float


class Preprocessed(NamedTuple):
    """A batch as it leaves preprocess.

    Attributes:
        pixels: uint8 [n, H, W, 3], RGB.
        geometry: float32 [n, 6]; zeros where the image could not be read.
        errors: why an image could not be read; empty where it could.
    """

    pixels: NDArray[np.uint8]
    geometry: NDArray[np.float32]
    errors: list[str]


def image_files(directory: Path) -> list[Path]:
    """The image files of a directory by their names' endings, sorted.

    Raises:
        ImageError: there is no such directory.
    """
    if not directory.is_dir():
        raise ImageError(f"there is no directory {directory}")
    return sorted(path for path in directory.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())


def read_header(encoded: bytes, *, max_bytes: int = MAX_ENCODED_BYTES, max_pixels: int = MAX_PIXELS) -> Header:
    """Read an image's header, and hold its size against the limits; nothing is decoded.

    Raises:
        ImageError: it is empty, no image of a known format, or larger than the limits.
    """
    with _open(encoded, max_bytes, max_pixels) as image:
        return _header(image, encoded)


def decode(encoded: bytes, *, max_bytes: int = MAX_ENCODED_BYTES, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Decode an image to RGB.

    Args:
        encoded: the file's bytes.
        max_bytes: limit on them.
        max_pixels: limit on width times height, checked before anything is decoded.

    Returns:
        uint8 [height, width, 3], rotated as EXIF says.

    Raises:
        ImageError: it cannot be read, ends early, or is larger than the limits. Nothing else is raised.
    """
    header = _plain_jpeg_header(encoded)
    if header is None or len(encoded) > max_bytes or header.width * header.height > max_pixels:
        with _open(encoded, max_bytes, max_pixels) as image:
            header = _header(image, encoded)
    rgb = _decode_with_opencv(encoded, header)
    if rgb is None:
        with _open(encoded, max_bytes, max_pixels) as image:
            rgb = _decode_with_pillow(image)
    if rgb.shape != (header.height, header.width, 3):
        raise ImageError(
            f"the image's header says {header.width}x{header.height}, "
            f"but {rgb.shape[1]}x{rgb.shape[0]} was decoded; save it anew"
        )
    # Pillow turns a TIFF upright as it loads it.
    return rgb if header.format == "TIFF" else _upright(rgb, header.orientation)


def _plain_jpeg_header(encoded: bytes) -> Header | None:
    """The header of a JPEG that nothing can ask to be turned; None for every other file.

    Most of what a service sees is such a JPEG, and Pillow's way to the same three numbers costs a preprocess that
    shares its caches with a detector 0.3 ms of 2.4.
    """
    position = 2
    while encoded[:2] == b"\xff\xd8" and encoded[position : position + 1] == b"\xff" and position + 9 <= len(encoded):
        marker, length = encoded[position + 1], int.from_bytes(encoded[position + 2 : position + 4], "big")
        if marker in _JPEG_FRAMES:
            height, width = (int.from_bytes(encoded[position + at : position + at + 2], "big") for at in (5, 7))
            return Header("JPEG", width, height, 1)
        if marker == _JPEG_EXIF_OR_XMP or length < 2:
            return None
        position += 2 + length
    return None


@contextmanager
def _open(encoded: bytes, max_bytes: int, max_pixels: int) -> Iterator[Image.Image]:
    """The image, opened and not decoded; whatever fails inside becomes an `ImageError`."""
    if not encoded:
        raise ImageError("the image is empty (0 bytes); send an encoded image")
    if len(encoded) > max_bytes:
        raise ImageError(f"the image has {len(encoded)} bytes, more than the limit of {max_bytes}; compress it more")
    try:
        # Pillow warns of what it reads all the same, such as broken EXIF; its own bomb limit is not ours.
        with _PILLOW_LOCK, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
                width, height = image.size
                if width * height > max_pixels:
                    raise ImageError(_too_many_pixels(f"{width * height} pixels ({width}x{height})", max_pixels))
                yield image
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(
            f"this is no image that can be read ({len(encoded)} bytes); send one of {', '.join(FORMATS)}"
        ) from error
    except Image.DecompressionBombError as error:  # it names the pixels in its message alone
        found = re.search(r"\d+", str(error))
        raise ImageError(_too_many_pixels(f"{found[0] if found else 'far too many'} pixels", max_pixels)) from error
    except Exception as error:  # decoders of ten formats fail in more ways than can be listed
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ImageError(f"the image is damaged or ends early ({reason}); save it anew") from error


def _too_many_pixels(found: str, max_pixels: int) -> str:
    return f"the image has {found}, more than the limit of {max_pixels}; send it smaller"


def _header(image: Image.Image, encoded: bytes) -> Header:
    # PNG's own method decodes the whole image to look for EXIF behind it, which few files have.
    late = image.format == "PNG" and _EXIF_BEHIND_PIXELS in _png_chunks(encoded)
    try:
        exif = image.getexif() if late else Image.Image.getexif(image)
        orientation = exif.get(_EXIF_ORIENTATION, 1)
    except Exception:  # broken EXIF says nothing of the pixels
        orientation = 1
    return Header(
        image.format or "", *image.size, orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1
    )


def _decode_with_opencv(encoded: bytes, header: Header) -> NDArray[np.uint8] | None:
    """RGB, or None where OpenCV cannot read it or does not notice that it ends early."""
    if header.format not in _OPENCV_FORMATS or not _is_whole(encoded, header.format):
        return None
    if header.format == "TIFF" and header.orientation != 1:
        return None  # OpenCV would turn it half the way
    try:
        flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
        rgb = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
    except Exception:  # cv2.error, and MemoryError or SystemError from the binding
        return None
    if rgb is None or rgb.dtype != np.uint8 or rgb.shape[:2] != (header.height, header.width):
        return None
    return rgb  # type: ignore[return-value]  # the dtype was just checked


def _is_whole(encoded: bytes, image_format: str) -> bool:
    """Whether the file's end is there; OpenCV fills what is missing with grey. Pillow judges what looks doubtful."""
    if image_format in ("JPEG", "MPO"):
        # Coded data never holds a marker, so an end after the last start of scan is the end of that scan.
        return encoded.endswith(b"\xff\xd9") or encoded.rfind(b"\xff\xd9") > encoded.rfind(b"\xff\xda")
    if image_format == "PNG":
        return b"IEND" in _png_chunks(encoded)
    return True


def _png_chunks(encoded: bytes) -> set[bytes]:
    """The kinds of a PNG's chunks up to the first that does not fit in the file; and whether EXIF follows the pixels.

    OpenCV makes room for a chunk before it looks whether it is there: seconds and 2 GB for a few forged bytes.
    """
    kinds: set[bytes] = set()
    position = 8
    while b"IEND" not in kinds and position + 12 <= len(encoded):
        end = position + 12 + int.from_bytes(encoded[position : position + 4], "big")
        if end > len(encoded):
            break
        kind, start = encoded[position + 4 : position + 8], encoded[position + 8 : position + 32]
        if b"IDAT" in kinds and (kind == b"eXIf" or start.startswith((b"XML:com.adobe.xmp", b"Raw profile type exif"))):
            kinds.add(_EXIF_BEHIND_PIXELS)
        kinds.add(kind)
        position = end
    return kinds


def _decode_with_pillow(image: Image.Image) -> NDArray[np.uint8]:
    """RGB of the first frame."""
    image.load()
    if image.mode == "I" and image.format == "TIFF":
        raise ImageError("the image has 32-bit pixels of unknown range; send 8 or 16 bits a channel")
    if image.mode.startswith("I"):
        wide = np.asarray(image).astype(np.int64).clip(0, 65535)
        return np.repeat((wide >> 8).astype(np.uint8)[..., None], 3, axis=2)
    if image.mode == "F":
        raise ImageError("the image has floating-point pixels; send 8 or 16 bits a channel")
    return np.array(image.convert("RGB"))


def _upright(rgb: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Undo EXIF's orientation."""
    # OpenCV's own turns are several times as fast as a copy of a strided view.
    if orientation >= 5:
        rgb = cv2.transpose(rgb)  # type: ignore[assignment]  # uint8 as its input
    flip = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    return rgb if flip is None else cv2.flip(rgb, flip)  # type: ignore[return-value]


def letterbox_geometry(
    width: int, height: int, target_width: int, target_height: int, placement: Placement = "center"
) -> Geometry:
    """Where an image of a size lies in a letterbox of another.

    `center` rounds as Ultralytics does, `top_left` as YOLOX does (its resized size is cut, not rounded); both keep
    the aspect ratio and enlarge small images. `stretch` fills the target. The scales are those of the resized size
    after rounding, so that boxes go there and back without drift.
    """
    if placement == "stretch":
        return Geometry(target_width / width, target_height / height, 0, 0, width, height)
    scale = min(target_width / width, target_height / height)
    to_int = int if placement == "top_left" else round
    new_width, new_height = (max(1, to_int(side * scale)) for side in (width, height))
    left = top = 0
    if placement == "center":
        left, top = (
            round((free - taken) / 2 - 0.1) for free, taken in ((target_width, new_width), (target_height, new_height))
        )
    return Geometry(new_width / width, new_height / height, left, top, width, height)


def letterbox(
    rgb: NDArray[np.uint8], canvas: NDArray[np.uint8], *, placement: Placement = "center", pad_value: int = 114
) -> Geometry:
    """Resize an image into a canvas, and paint what it leaves free; everything of the canvas is written, once.

    Args:
        rgb: uint8 [height, width, 3].
        canvas: uint8 [H, W, 3], such as a row of a batch.
        placement: where the image goes.
        pad_value: grey level of the border.
    """
    height, width = rgb.shape[:2]
    target_height, target_width = canvas.shape[:2]
    geometry = letterbox_geometry(width, height, target_width, target_height, placement)
    left, top = int(geometry.pad_left), int(geometry.pad_top)
    right, bottom = left + round(geometry.scale_x * width), top + round(geometry.scale_y * height)
    inside = canvas[top:bottom, left:right]
    if inside.shape == rgb.shape:
        inside[:] = rgb
    else:
        cv2.resize(rgb, (right - left, bottom - top), dst=inside, interpolation=cv2.INTER_LINEAR)
    canvas[:top], canvas[bottom:] = pad_value, pad_value
    canvas[top:bottom, :left], canvas[top:bottom, right:] = pad_value, pad_value
    return geometry


def preprocess(
    images: Sequence[bytes],
    spec: DetectorSpec,
    *,
    max_bytes: int = MAX_ENCODED_BYTES,
    max_pixels: int = MAX_PIXELS,
) -> Preprocessed:
    """Decode and letterbox a batch; an image that cannot be read costs its own row alone.

    Such a row holds plain border, a geometry of zeros and its error in a sentence. No image raises anything.
    """
    pixels = np.empty((len(images), spec.height, spec.width, 3), np.uint8)
    geometry = np.zeros((len(images), len(GEOMETRY_FIELDS)), np.float32)
    errors = [""] * len(images)
    for row, encoded in enumerate(images):
        try:
            rgb = decode(encoded, max_bytes=max_bytes, max_pixels=max_pixels)
            geometry[row] = letterbox(rgb, pixels[row], placement=spec.placement, pad_value=spec.pad_value)
        except Exception as error:  # noqa: PERF203  # whatever it is, the other images of the batch are not to blame
            pixels[row] = spec.pad_value
            geometry[row] = 0
            errors[row] = str(error) if isinstance(error, ImageError) else f"the image cannot be processed: {error!r}"
    return Preprocessed(pixels, geometry, errors)
