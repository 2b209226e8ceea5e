"""Small encoded images, made here."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def gradient(width: int = 60, height: int = 40) -> NDArray[np.uint8]:
    """A smooth picture without symmetry, uint8 RGB."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    planes = [x / width, y / height, (x + 2 * y) / (width + 2 * height)]
    picture: NDArray[np.uint8] = (np.stack(planes, -1) * 255).astype(np.uint8)
    return picture


def save(image: Image.Image, image_format: str, **options: Any) -> bytes:
    """Encode an image with Pillow."""
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


RGB = Image.fromarray(gradient())
JPEG, PNG = save(RGB, "JPEG", quality=95), save(RGB, "PNG")


def png_header(width: int, height: int) -> bytes:
    """A PNG of any size by its header, with hardly any pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 999)) + chunk(b"IEND", b"")
    )


def damaged_animation() -> bytes:
    """A PNG with an animation whose first picture is narrower than its frames; OpenCV 4.11 dies of it."""
    first = Image.fromarray(gradient(48, 32))
    frames = [first, Image.fromarray(255 - gradient(48, 32)), first.rotate(180)]
    encoded = bytearray(save(frames[0], "PNG", save_all=True, append_images=frames[1:], default_image=True))
    encoded[16:20] = (1).to_bytes(4, "big")
    encoded[29:33] = zlib.crc32(encoded[12:29]).to_bytes(4, "big")
    return bytes(encoded)


EMPTY_SCAN = b"\xff\xda" + bytes([0, 8, 1, 1, 0x00, 1, 63, 0])
"""A scan of a progressive JPEG that says nothing new, and still costs a walk over all pixels."""


def many_scans(count: int, width: int = 60, height: int = 40) -> bytes:
    """A progressive JPEG with so many empty scans."""
    whole = save(Image.fromarray(gradient(width, height)), "JPEG", progressive=True)
    return whole[:-2] + EMPTY_SCAN * count + b"\xff\xd9"
