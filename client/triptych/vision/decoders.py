"""The two decoders: OpenCV is faster, and Pillow decodes what OpenCV cannot, gets wrong or is known to crash on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from triptych.errors import ImageError
from triptych.opencv import cv2
from triptych.vision.png import read_chunks
from triptych.vision.pnm import white_of_pnm

if TYPE_CHECKING:
    from triptych.vision.decode import Header

_OPENCV_FORMATS = frozenset(("JPEG", "MPO", "PNG", "WEBP", "BMP", "TIFF", "PPM"))
_BITS, _EXTRA_SAMPLES = 258, 338  # tags of TIFF


def is_for_opencv(encoded: bytes, header: Header, image: Image.Image) -> bool:
    """Return whether OpenCV decodes a file rightly, and would notice that it ends early."""
    if header.format not in _OPENCV_FORMATS or not is_whole(encoded, header.format) or _is_animated(encoded, header):
        return False
    if header.format != "TIFF":
        return True
    # OpenCV rotates a TIFF, but not in every way that EXIF knows, and gives colours multiplied by their alpha.
    tags = getattr(image, "tag_v2", {})
    has_alpha = _EXTRA_SAMPLES in tags or image.getbands()[-1] in "Aa"
    return header.orientation == 1 and not has_alpha and set(tags.get(_BITS, (1,))) <= {1, 8, 16}


def with_opencv(encoded: bytes, header: Header, factor: int = 1) -> NDArray[np.uint8] | None:
    """Decode to RGB; None where OpenCV cannot. `factor`, 1, 2, 4 or 8, divides the sides of a JPEG, rounded up."""
    white = white_of_pnm(encoded) if header.format == "PPM" else None
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    if factor > 1:
        flags |= getattr(cv2, f"IMREAD_REDUCED_COLOR_{factor}")
    if white is not None:
        flags |= cv2.IMREAD_ANYDEPTH
    try:
        rgb = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
    except Exception:  # cv2.error, and MemoryError or SystemError from the binding
        return None
    if rgb is None or rgb.shape != (-(-header.height // factor), -(-header.width // factor), 3):
        return None
    if white is not None and rgb.dtype in (np.uint8, np.uint16):
        return _scaled(rgb, white)
    return rgb if rgb.dtype == np.uint8 else None  # type: ignore[return-value]  # the dtype was just checked


def with_pillow(image: Image.Image) -> NDArray[np.uint8]:
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


def is_whole(encoded: bytes, image_format: str) -> bool:
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


def _scaled(values: Any, white: int) -> NDArray[np.uint8]:
    """Scale values of 0 to `white` to 0..255; what is above `white` is white."""
    table = np.minimum(np.arange(np.iinfo(values.dtype).max + 1) * 255.0 / white + 0.5, 255).astype(np.uint8)
    scaled: NDArray[np.uint8] = table[values]
    return scaled
