"""Damaged image files: seeds in all formats, and mutations of them. Everything follows from a seeded generator."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from random import Random

import numpy as np
from PIL import Image, features

from support.images import gradient, save

_RGB = Image.fromarray(gradient(48, 32))
_INTERESTING = (
    0,
    1,
    2,
    7,
    0x7F,
    0x80,
    0xFF,
    0x100,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x10000,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
)


def _frames(image_format: str, **options: object) -> bytes:
    frames = [_RGB, Image.fromarray(255 - gradient(48, 32)), _RGB.rotate(180)]
    return save(frames[0], image_format, save_all=True, append_images=frames[1:], **options)


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def _interlaced_png() -> bytes:
    """A PNG in seven passes, which Pillow cannot write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    pixels = gradient(48, 32)
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    rows = b"".join(b"\0" + row.tobytes() for x, y, dx, dy in passes for row in pixels[y::dy, x::dx])
    header = struct.pack(">IIBBBBB", 48, 32, 8, 2, 0, 0, 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def seeds() -> dict[str, list[bytes]]:
    """Return small whole files by format: every kind of pixel and compression that Pillow can write."""
    grey, palette = _RGB.convert("L"), _RGB.convert("P")
    wide = Image.fromarray((np.arange(48 * 32, dtype=np.uint16) * 40).reshape(32, 48))
    ascii_pixels = " ".join(map(str, gradient(48, 32).reshape(-1)))
    files = {
        "JPEG": [
            save(_RGB, "JPEG"),
            save(_RGB, "JPEG", progressive=True, exif=_exif(6)),
            save(grey, "JPEG", optimize=True),
            save(_RGB.convert("CMYK"), "JPEG"),
            save(_RGB, "JPEG", subsampling=0, restart_marker_blocks=2, exif=_exif(3)),
            save(_RGB, "JPEG", progressive=True, subsampling=2, restart_marker_rows=1),
        ],
        "MPO": [_frames("MPO")],
        "PNG": [
            save(_RGB, "PNG", exif=_exif(8)),
            save(palette, "PNG", transparency=3),
            save(_RGB.convert("RGBA"), "PNG"),
            save(grey.convert("1"), "PNG"),
            save(wide, "PNG"),
            _interlaced_png(),
        ],
        "APNG": [_frames("PNG"), _frames("PNG", default_image=True)],
        "WEBP": [save(_RGB, "WEBP"), save(_RGB.convert("RGBA"), "WEBP", lossless=True), _frames("WEBP")],
        "BMP": [save(_RGB, "BMP"), save(palette, "BMP"), save(grey.convert("1"), "BMP")],
        "GIF": [save(palette, "GIF"), _frames("GIF")],
        "TIFF": [
            *(
                save(_RGB, "TIFF", compression=name)
                for name in (None, "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")
            ),
            save(grey.convert("1"), "TIFF", compression="group4"),
            save(wide, "TIFF"),
            _frames("TIFF"),
            save(_RGB, "TIFF", tiffinfo={322: 16, 323: 16}),
        ],
        "PPM": [
            save(_RGB, "PPM"),
            save(grey, "PPM"),
            save(grey.convert("1"), "PPM"),
            f"P3 48 32 255\n{ascii_pixels}\n".encode(),
            f"P3 # comment\n48 32 65535\n{ascii_pixels}\n".encode(),
        ],
    }
    if features.check("jpg_2000"):
        files["JPEG2000"] = [save(_RGB, "JPEG2000"), save(grey, "JPEG2000", irreversible=True, tile_size=(16, 16))]
    if features.check("avif"):
        files["AVIF"] = [save(_RGB, "AVIF", speed=10), _frames("AVIF", speed=10)]
    return files


def mutate(encoded: bytes, other: bytes, random: Random) -> bytes:
    """Damage a file in one to six places; `other` is a file of the same format to take pieces from."""
    data = bytearray(encoded)
    for _ in range(random.choice((1, 1, 1, 2, 2, 3, 6))):
        if not data:
            break
        random.choice(_MUTATIONS)(data, other, random)
    return _with_checksums(bytes(data)) if random.random() < 0.8 else bytes(data)


def _flip(data: bytearray, _: bytes, random: Random) -> None:
    data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def _byte(data: bytearray, _: bytes, random: Random) -> None:
    data[random.randrange(len(data))] = random.randrange(256)


def _head(data: bytearray, _: bytes, random: Random) -> None:
    data[random.randrange(min(len(data), 64))] = random.choice((0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)))


def _number(data: bytearray, _: bytes, random: Random) -> None:
    size = random.choice((1, 2, 4))
    at = random.randrange(len(data))
    value = random.choice(_INTERESTING) & (256**size - 1)
    data[at : at + size] = value.to_bytes(size, random.choice(("big", "little")))


def _delete(data: bytearray, _: bytes, random: Random) -> None:
    at = random.randrange(len(data))
    del data[at : at + random.choice((1, 2, 4, 16, 100))]


def _repeat(data: bytearray, _: bytes, random: Random) -> None:
    at, size = random.randrange(len(data)), random.choice((1, 4, 12, 40, 200))
    data[at:at] = data[at : at + size] * random.choice((1, 1, 2, 30))


def _insert(data: bytearray, _: bytes, random: Random) -> None:
    at = random.randrange(len(data))
    data[at:at] = random.randbytes(random.choice((1, 2, 4, 16, 64)))


def _cut(data: bytearray, _: bytes, random: Random) -> None:
    del data[random.randrange(len(data)) :]


def _splice(data: bytearray, other: bytes, random: Random) -> None:
    at, size = random.randrange(len(other)), random.choice((4, 12, 50, 200, 1000))
    to = random.randrange(len(data))
    data[to : to + random.choice((0, size))] = other[at : at + size]


def _swap(data: bytearray, _: bytes, random: Random) -> None:
    size = random.choice((2, 8, 30))
    one, two = random.randrange(len(data)), random.randrange(len(data))
    data[one : one + size], data[two : two + size] = data[two : two + size], data[one : one + size]


_Mutation = Callable[[bytearray, bytes, Random], None]
_MUTATIONS: tuple[_Mutation, ...] = (_flip, _byte, _head, _number, _delete, _repeat, _insert, _cut, _splice, _swap)


def _with_checksums(encoded: bytes) -> bytes:
    """Mend the checksums of a PNG's chunks, so that its damage reaches the code behind the check."""
    if not encoded.startswith(b"\x89PNG\r\n\x1a\n"):
        return encoded
    mended, position = io.BytesIO(), 8
    mended.write(encoded[:8])
    while position + 12 <= len(encoded):
        end = position + 8 + int.from_bytes(encoded[position : position + 4], "big")
        if end + 4 > len(encoded):
            break
        checksum = zlib.crc32(encoded[position + 4 : end])
        mended.write(encoded[position:end] + struct.pack(">I", checksum))
        position = end + 4
    mended.write(encoded[position:])
    return mended.getvalue()
