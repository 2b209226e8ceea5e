"""Encoded images to what the detector takes: header check, decode, letterbox.

Images come from strangers, so the header is read first, by Pillow, and nothing is decoded that is larger than the
limits allow. OpenCV then decodes JPEG, PNG and WebP (1.5 to 2.5 times as fast as Pillow) and Pillow the rest:
animations, BMP, GIF, TIFF, PPM, JPEG 2000, AVIF, and whatever OpenCV gives up on.

Rules that hold for every format:

- the first frame of an animation, or of a file with several images, stands for the file;
- grey is replicated into three channels, and CMYK and palettes are converted to RGB;
- alpha is dropped, not composited: the pixels are those that the file stores under it;
- of 16 bits the high byte is taken; 32-bit integers and floats are refused, as their range is unknown;
- the EXIF (or XMP, TIFF, AVIF) orientation is applied, and an orientation that cannot be read counts as upright.
"""

from __future__ import annotations

import io
import re
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from triptych.contract import GEOMETRY_FIELDS, MAX_ENCODED_BYTES, MAX_PIXELS, DetectorSpec, Placement
from triptych.errors import ImageError

__all__ = [
    "SUPPORTED",
    "Geometry",
    "Header",
    "Preprocessed",
    "decode",
    "letterbox",
    "letterbox_geometry",
    "preprocess",
    "read_header",
]

SUPPORTED = "JPEG, PNG, WebP, BMP, GIF, TIFF, PPM, JPEG 2000 or AVIF"
"""The formats that `decode` reads, for messages."""

# By how often they come. AVIF is last because Pillow before 11.3 does not know it, and fails where it gets that far.
_PILLOW_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF")
_OPENCV_FORMATS = frozenset({"JPEG", "MPO", "PNG", "WEBP"})

_ORIENTATION_TAG = 0x0112
# Orientation to (transpose first, then this flip code of cv2.flip).
_TURNS: dict[int, tuple[bool, int | None]] = {
    2: (False, 1),
    3: (False, -1),
    4: (False, 0),
    5: (True, None),
    6: (True, 1),
    7: (True, -1),
    8: (True, 0),
}

# Pillow warns about what we judge ourselves. Python's warning filters belong to the whole process: two threads that
# leave `catch_warnings` in the wrong order would leave "ignore" behind for good.
_PILLOW_LOCK = threading.Lock()

# What OpenCV logs we raise, or read with Pillow.
cv2.setLogLevel(0)


@dataclass(frozen=True)
class Header:
    """What the header of an encoded image says.

    Attributes:
        format: Pillow's name of the format, such as "JPEG" or "WEBP".
        width: in pixels, after the orientation is applied.
        height: in pixels, after the orientation is applied.
        orientation: as EXIF numbers it, 1..8; 1 is upright.
        animated: whether a PNG or a WebP holds more than one frame (not looked for in other formats).
    """

    format: str
    width: int
    height: int
    orientation: int
    animated: bool


class Geometry(NamedTuple):
    """Where an image lies in its letterbox; the fields of `contract.GEOMETRY_FIELDS`, in their order.

    x_letterbox = x_original * scale_x + pad_left, and likewise y.

    Attributes:
        scale_x: width of the resized image over the original's; exact, so it may differ a little from scale_y.
        scale_y: likewise for the height.
        pad_left: columns left of the resized image.
        pad_top: rows above the resized image.
        width: of the original, in pixels.
        height: of the original, in pixels.
    """

    scale_x: float
    scale_y: float
    pad_left: int
    pad_top: int
    width: int
    height: int


class Preprocessed(NamedTuple):
    """A batch for the detector.

    Attributes:
        pixels: uint8 [n, H, W, 3] in RGB, letterboxed; all `pad_value` where the image could not be read.
        geometry: float32 [n, 6], rows of `Geometry`; zeros where the image could not be read.
        errors: n sentences; "" where the image was read.
    """

    pixels: NDArray[np.uint8]
    geometry: NDArray[np.float32]
    errors: list[str]


def read_header(encoded: bytes, *, max_bytes: int = MAX_ENCODED_BYTES, max_pixels: int = MAX_PIXELS) -> Header:
    """Read the header of an image and hold it against the limits, without decoding pixels.

    Args:
        encoded: the image as it came from a camera or a disk.
        max_bytes: limit on its size.
        max_pixels: limit on width * height. Pillow sets one more, `2 * PIL.Image.MAX_IMAGE_PIXELS` (179 million).

    Raises:
        ImageError: it is empty, too large, cut short (JPEG and PNG), or no image of a supported format.
    """
    if not encoded:
        raise ImageError("the image is empty (0 bytes)")
    if len(encoded) > max_bytes:
        raise ImageError(f"the image has {len(encoded)} bytes, more than the limit of {max_bytes}; send a smaller one")
    with _PILLOW_LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = _open(encoded, max_pixels)
        width, height = image.size
        if width < 1 or height < 1:
            raise ImageError(f"the image is empty ({width}x{height} pixels); send one with at least one pixel")
        if width * height > max_pixels:
            raise _too_many_pixels(f"{width * height} pixels ({width}x{height})", max_pixels)
        format_ = image.format or ""
        late_orientation = False
        if format_ in ("JPEG", "MPO"):
            _check_jpeg_ends(encoded)
        elif format_ == "PNG":
            late_orientation = _check_png_ends(encoded)
        orientation = _orientation(image, late_orientation)
        # Pillow already gives a TIFF's size as it is after the rotation.
        if orientation >= 5 and format_ != "TIFF":
            width, height = height, width
        animated = format_ in ("PNG", "WEBP") and bool(getattr(image, "is_animated", False))
    return Header(format_, width, height, orientation, animated)


def decode(encoded: bytes, *, max_bytes: int = MAX_ENCODED_BYTES, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Decode an image to uint8 [H, W, 3] in RGB, upright; the module's docstring states the rules.

    Args:
        encoded: the image as it came from a camera or a disk.
        max_bytes: limit on its size.
        max_pixels: limit on width * height, checked before anything is decoded.

    Raises:
        ImageError: the image cannot be read, or is larger than the limits allow. Nothing else, for any bytes.
    """
    header = read_header(encoded, max_bytes=max_bytes, max_pixels=max_pixels)
    pixels = None
    if header.format in _OPENCV_FORMATS and not header.animated:
        pixels = _decode_with_opencv(encoded)
    if pixels is None:
        pixels = _decode_with_pillow(encoded, max_pixels)
    if header.format != "TIFF":  # Pillow turns a TIFF by itself
        pixels = _upright(pixels, header.orientation)
    height, width = pixels.shape[:2]
    if (width, height) != (header.width, header.height):
        raise ImageError(
            f"the image's header says {header.width}x{header.height} pixels, but it holds {width}x{height}; "
            "send it encoded anew"
        )
    return pixels


def letterbox_geometry(
    width: int, height: int, target_width: int, target_height: int, placement: Placement
) -> Geometry:
    """Where an image of `width` x `height` lies in a letterbox of `target_width` x `target_height` pixels.

    The image keeps its aspect, up to the rounding to whole pixels, and is enlarged where it is smaller.

    `center` rounds as `LetterBox` of Ultralytics does, `top_left` truncates as `preproc` of YOLOX does, so that a
    detector meets what it was trained on.

    >>> letterbox_geometry(1280, 720, 640, 640, "center")
    Geometry(scale_x=0.5, scale_y=0.5, pad_left=0, pad_top=140, width=1280, height=720)
    """
    scale = min(target_width / width, target_height / height)
    if placement == "center":
        inner_width, inner_height = max(1, round(width * scale)), max(1, round(height * scale))
        # The 0.1 puts the odd pixel to the right and below, whatever half the rounding would choose.
        pad_left = round((target_width - inner_width) / 2 - 0.1)
        pad_top = round((target_height - inner_height) / 2 - 0.1)
    else:
        inner_width, inner_height = max(1, int(width * scale)), max(1, int(height * scale))
        pad_left = pad_top = 0
    return Geometry(inner_width / width, inner_height / height, pad_left, pad_top, width, height)


def letterbox(
    image_rgb: NDArray[np.uint8], canvas: NDArray[np.uint8], *, placement: Placement, pad_value: int
) -> Geometry:
    """Resize an image into a canvas, in place, and fill the border around it.

    Args:
        image_rgb: uint8 [h, w, 3].
        canvas: uint8 [H, W, 3] with contiguous rows, such as one row of a batch; every pixel is overwritten.
        placement: where the resized image lies.
        pad_value: grey level of the border, 0..255.

    Returns:
        The placement, which undoes the letterbox.
    """
    height, width = image_rgb.shape[:2]
    geometry = letterbox_geometry(width, height, canvas.shape[1], canvas.shape[0], placement)
    left, top = geometry.pad_left, geometry.pad_top
    right, bottom = left + round(width * geometry.scale_x), top + round(height * geometry.scale_y)
    canvas[:top] = pad_value
    canvas[bottom:] = pad_value
    canvas[top:bottom, :left] = pad_value
    canvas[top:bottom, right:] = pad_value
    inner = canvas[top:bottom, left:right]
    if inner.shape == image_rgb.shape:
        inner[:] = image_rgb
    else:
        cv2.resize(image_rgb, (right - left, bottom - top), dst=inner, interpolation=cv2.INTER_LINEAR)
    return geometry


def preprocess(
    images: Sequence[bytes],
    spec: DetectorSpec,
    *,
    max_bytes: int = MAX_ENCODED_BYTES,
    max_pixels: int = MAX_PIXELS,
) -> Preprocessed:
    """Decode and letterbox a batch; an image that cannot be read costs its own row alone.

    Args:
        images: n encoded images.
        spec: the detector that the batch is for.
        max_bytes: limit on the size of one encoded image.
        max_pixels: limit on the pixels of one image.
    """
    pixels = np.empty((len(images), spec.height, spec.width, 3), np.uint8)
    geometry = np.zeros((len(images), len(GEOMETRY_FIELDS)), np.float32)
    errors = [""] * len(images)
    for row, encoded in enumerate(images):
        try:
            image_rgb = decode(encoded, max_bytes=max_bytes, max_pixels=max_pixels)
            geometry[row] = letterbox(image_rgb, pixels[row], placement=spec.placement, pad_value=spec.pad_value)
        except ImageError as error:
            errors[row] = str(error)
        except Exception as error:
            errors[row] = f"internal error while reading the image: {type(error).__name__}: {_one_line(error)}"
        if errors[row]:
            pixels[row] = spec.pad_value
    return Preprocessed(pixels, geometry, errors)


def _open(encoded: bytes, max_pixels: int) -> Image.Image:
    """Let Pillow read the header; call it with `_PILLOW_LOCK` held and warnings off."""
    try:
        return Image.open(io.BytesIO(encoded), formats=_PILLOW_FORMATS)
    except Image.DecompressionBombError as error:
        # Pillow says the number of pixels in the message alone.
        found = re.search(r"\d+", str(error))
        pixels = int(found[0]) if found else 0
        limit = max_pixels if pixels > max_pixels else 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise _too_many_pixels(f"{pixels} pixels", limit) from error
    except (UnidentifiedImageError, KeyError) as error:  # KeyError: a format that this Pillow does not know
        start = encoded[:12]
        raise ImageError(f"not an image that can be read: it starts with {start!r}; send {SUPPORTED}") from error
    except Exception as error:
        raise _unreadable(error) from error


def _orientation(image: Image.Image, late: bool) -> int:
    """The orientation of an opened image, 1..8; what cannot be read is 1."""
    try:
        # A PNG's own `getexif` decodes all pixels to find what stands behind them; it hardly ever does.
        exif = image.getexif() if late else Image.Image.getexif(image)
        orientation = exif.get(_ORIENTATION_TAG, 1)
    except Exception:
        return 1
    return orientation if isinstance(orientation, int) and orientation in _TURNS else 1


def _check_jpeg_ends(encoded: bytes) -> None:
    """Refuse a JPEG that was cut short, which libjpeg would fill up with grey.

    In a scan's data no 0xFF is followed by 0xD9 but at the end of the image. The headers before it are skipped, as a
    thumbnail in them has an end of its own; what follows the end (a second image, a gain map) does not matter.
    """
    position = 2
    while (position := encoded.find(b"\xff", position)) >= 0 and position + 4 <= len(encoded):
        marker = encoded[position + 1]
        if marker in (0x00, 0xFF):  # stuffing and fill bytes
            position += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD9:  # markers without a length
            position += 2
        else:
            position += 2 + int.from_bytes(encoded[position + 2 : position + 4], "big")
            if marker == 0xDA and encoded.find(b"\xff\xd9", position) >= 0:  # start of scan
                return
            if marker == 0xDA:
                break
    raise ImageError(f"the image is cut short: a JPEG of {len(encoded)} bytes without its end; send the whole file")


def _check_png_ends(encoded: bytes) -> bool:
    """Refuse a PNG that was cut short; tell whether an orientation may stand behind its pixels.

    This also keeps chunks of absurd length from OpenCV, which makes room for them before it reads them.
    """
    position, seen_pixels, late = 8, False, False
    while position + 12 <= len(encoded):
        kind = encoded[position + 4 : position + 8]
        if kind == b"IEND":
            return late
        if kind == b"IDAT":
            seen_pixels = True
        elif seen_pixels:
            start = encoded[position + 8 : position + 32]
            late = late or kind == b"eXIf" or start.startswith((b"XML:com.adobe.xmp", b"Raw profile type exif"))
        position += 12 + int.from_bytes(encoded[position : position + 4], "big")
    raise ImageError(f"the image is cut short: a PNG of {len(encoded)} bytes without its end; send the whole file")


def _decode_with_opencv(encoded: bytes) -> NDArray[np.uint8] | None:
    """Decode to uint8 [H, W, 3] in RGB as it is stored; None where OpenCV cannot."""
    try:
        pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    except Exception:  # cv2.error, and MemoryError or SystemError from the binding
        return None
    return pixels  # type: ignore[return-value]  # uint8 by the flags, and None on failure, which the stub leaves out


def _decode_with_pillow(encoded: bytes, max_pixels: int) -> NDArray[np.uint8]:
    """Decode the first frame to uint8 [H, W, 3] in RGB as it is stored (a TIFF: upright)."""
    with _PILLOW_LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = _open(encoded, max_pixels)
        try:
            image.load()
            if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
                # Pillow holds all of a PPM's depths above 8 bits as 0..65535; its own conversion would clip at 255.
                grey = (np.asarray(image) >> 8).astype(np.uint8)
                return np.repeat(grey[:, :, np.newaxis], 3, axis=2)
            if image.mode not in ("I", "F"):
                return np.array(image.convert("RGB"))
        except Exception as error:
            raise _unreadable(error) from error
        raise ImageError(
            f"the image's pixels are 32-bit {'floats' if image.mode == 'F' else 'integers'} of unknown range; "
            "send 8 or 16 bits per channel"
        )


def _upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Turn uint8 [H, W, 3] as its orientation asks."""
    transpose, flip = _TURNS.get(orientation, (False, None))
    if transpose:
        pixels = cv2.transpose(pixels)  # type: ignore[assignment]  # uint8 as its input
    if flip is not None:
        pixels = cv2.flip(pixels, flip)  # type: ignore[assignment]
    return pixels


def _too_many_pixels(found: str, limit: int) -> ImageError:
    return ImageError(f"the image has {found}, more than the limit of {limit}; send a smaller one")


def _unreadable(error: Exception) -> ImageError:
    return ImageError(f"not an image that can be read: {_one_line(error)}; send a whole and valid {SUPPORTED}")


def _one_line(error: Exception, limit: int = 200) -> str:
    return " ".join(str(error).split())[:limit] or type(error).__name__
