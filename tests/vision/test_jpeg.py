"""A JPEG's markers: what they say agrees with Pillow, and what is unusual is left to others."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from support.images import EMPTY_SCAN, JPEG, PNG, RGB, many_scans, save
from triptych.errors import ImageError
from triptych.vision.decode import decode
from triptych.vision.jpeg import MAX_SCANS, PlainJpeg, check_scans, is_quick, is_usual, plain_jpeg

PROGRESSIVE = save(RGB, "JPEG", progressive=True)


def exif(orientation: int) -> Image.Exif:
    values = Image.Exif()
    values[0x0112] = orientation
    return values


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content


def with_segment(encoded: bytes, inserted: bytes, before: int) -> bytes:
    """Put a segment before the first marker of a kind."""
    at = encoded.index(bytes([0xFF, before]))
    return encoded[:at] + inserted + encoded[at:]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=["baseline", "progressive"])
def test_size_and_orientation(orientation: int, options: dict[str, bool]) -> None:
    jpeg = plain_jpeg(save(RGB, "JPEG", exif=exif(orientation), **options))
    assert jpeg is not None
    assert jpeg[:3] == (60, 40, orientation)


def test_the_usual_jpeg() -> None:
    assert plain_jpeg(JPEG) == PlainJpeg(60, 40, 1, 1)
    assert is_quick(JPEG)
    assert is_quick(PROGRESSIVE)


def test_big_endian_exif() -> None:
    encoded = save(RGB, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0")
    assert Image.open(io.BytesIO(encoded)).getexif()[0x0112] == 6
    jpeg = plain_jpeg(encoded)
    assert jpeg is not None
    assert jpeg.orientation == 6


def test_exif_behind_the_frame_header_counts() -> None:
    whole = save(RGB, "JPEG", exif=exif(6))
    start = whole.index(b"\xff\xe1")
    length = 2 + int.from_bytes(whole[start + 2 : start + 4], "big")
    late = with_segment(whole[:start] + whole[start + length :], whole[start : start + length], before=0xDA)
    assert late.index(b"Exif") > late.index(b"\xff\xc0")
    assert plain_jpeg(late) == plain_jpeg(whole)
    assert decode(late).shape == (60, 40, 3)


XMP = b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="6"/>'
EXIF = b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"


@pytest.mark.parametrize(
    "encoded",
    [
        b"",
        PNG,
        JPEG[:100],
        with_segment(JPEG, segment(0xE1, XMP), before=0xDB),
        with_segment(JPEG, segment(0xE1, b"Exif\0\0nonsense"), before=0xDB),
        with_segment(JPEG, segment(0xE1, EXIF) * 2, before=0xDB),
        with_segment(JPEG, segment(0xE2, b"MPF\0"), before=0xDB),
        with_segment(JPEG, segment(0xFE, b"") * 300, before=0xDB),
        with_segment(JPEG, segment(0xC0, bytes(15)), before=0xC0),
        JPEG.replace(b"\xff\xc0", b"\xff\xc9"),
    ],
    ids=[
        "nothing",
        "png",
        "cut",
        "xmp",
        "broken",
        "two-exifs",
        "mpf",
        "many-segments",
        "two-frames",
        "arithmetic",
    ],
)
def test_what_is_unusual_is_left_to_others(encoded: bytes) -> None:
    assert plain_jpeg(encoded) is None
    assert not is_quick(encoded)


GREY = save(RGB.convert("L"), "JPEG")
JFIF = JPEG[2 : 4 + int.from_bytes(JPEG[4:6], "big")]
"""JFIF's segment, which says that three components are YCbCr."""


def adobe(transform: int) -> bytes:
    """The segment of a JPEG by an Adobe program: 0 for RGB, 1 for YCbCr."""
    return segment(0xEE, b"Adobe" + bytes([0, 100, 0, 0, 0, 0, transform]))


def named(ids: bytes) -> bytes:
    """A JPEG without JFIF's segment whose components have these names."""
    encoded, at = bytearray(JPEG), JPEG.index(b"\xff\xc0") + 10
    encoded[at : at + 9 : 3] = ids
    return bytes(encoded).replace(JFIF, b"")


@pytest.mark.parametrize(
    ("encoded", "expected"),
    [
        (JPEG, True),
        (PROGRESSIVE, True),
        (GREY, True),
        *[(save(RGB, "JPEG", subsampling=colours), True) for colours in ("4:4:4", "4:2:2", "4:2:0")],
        (save(RGB.convert("CMYK"), "JPEG"), False),
        (with_segment(JPEG, adobe(1), before=0xDB), True),
        (with_segment(JPEG, adobe(0), before=0xDB), False),
        (named(b"\1\2\3"), True),
        (named(b"RGB"), False),
        (named(b"\1\2\4"), False),
        (JPEG.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc1\0\x11\x0c"), False),
        (JPEG.replace(b"\x01\x22\0\x02\x11\1", b"\x01\x22\0\x02\x21\1"), False),
        (GREY.replace(b"\x01\x11\0\xff", b"\x01\x22\0\xff"), False),
    ],
    ids=[
        "baseline",
        "progressive",
        "grey",
        "4:4:4",
        "4:2:2",
        "4:2:0",
        "cmyk",
        "adobe-ycc",
        "adobe-rgb",
        "ids-ycc",
        "ids-rgb",
        "ids-unknown",
        "12 bits",
        "finer colours",
        "grey sampled twice",
    ],
)
def test_what_every_decoder_understands_alike(encoded: bytes, expected: bool) -> None:
    assert plain_jpeg(encoded) is not None
    assert is_usual(encoded) is expected


def test_scans_of_a_large_picture_are_not_quick() -> None:
    assert is_quick(many_scans(10))
    assert not is_quick(many_scans(90, 2000, 1500))


def test_too_many_scans_are_refused_before_they_are_decoded() -> None:
    with pytest.raises(ImageError, match=f"more than {MAX_SCANS} scans; save it again, not progressive"):
        decode(many_scans(12_000, 600, 400))
    check_scans(many_scans(MAX_SCANS - 20))


def test_what_lies_behind_the_picture_has_no_scans() -> None:
    """A phone's moving picture has a video there, with any bytes."""
    moving = JPEG + EMPTY_SCAN * 500
    check_scans(moving)
    assert decode(moving).shape == (40, 60, 3)


def test_an_end_inside_a_segment_is_no_end() -> None:
    hidden = segment(0xFE, b"\xff\xd9")
    with pytest.raises(ImageError, match="scans"):
        check_scans(PROGRESSIVE[:-2] + hidden + EMPTY_SCAN * 200 + b"\xff\xd9")
