"""What a JPEG says of itself before its pixels: size, orientation, scans and colours, from its markers alone."""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

from triptych.errors import ImageError

MAX_SCANS = 100
"""How many scans a JPEG may have. Each one goes over all pixels again; encoders write at most about ten."""

_MAX_SEGMENTS = 256  # before the first scan; cameras write a few dozen
_QUICK_PIXELS = 100_000_000  # pixels times scans, which take about half a second
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # the markers that carry the size
_PROGRESSIVE = 0xC2
_PLAIN_FRAMES = frozenset((0xC0, 0xC1, _PROGRESSIVE))  # baseline, extended and progressive, with Huffman's code
_START_OF_SCAN, _END_OF_IMAGE, _APP0, _APP1, _APP2, _APP14 = 0xDA, 0xD9, 0xE0, 0xE1, 0xE2, 0xEE
_ORIENTATION, _SHORT = 0x0112, 3
_YCC_IDS = b"\x01\x02\x03"
_LUMA_SAMPLINGS = (b"\x11", b"\x21", b"\x12", b"\x22")  # of which the colours have all, half or a quarter
# Coded data never contains a marker other than these: a stuffed zero, a restart, a fill byte.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


class PlainJpeg(NamedTuple):
    """A JPEG without surprises.

    Attributes:
        width: in pixels, as the file stores it.
        height: the same for the height.
        orientation: EXIF's, 1..8, and 1 where there is none.
        scans: how many scans it has at most. Those of a picture behind this one count too.
    """

    width: int
    height: int
    orientation: int
    scans: int


def plain_jpeg(encoded: bytes) -> PlainJpeg | None:
    """Return what the markers up to the first scan say; None for every other file, and for a JPEG that is unusual.

    Most images that a service sees are plain. Pillow takes 0.3 ms to the same numbers where a detector uses the caches
    too, of 2.4 ms that the whole preprocess takes.
    """
    position, size, orientation, components, progressive = 2, None, None, 0, False
    if encoded[:2] != b"\xff\xd8":
        return None
    for _ in range(_MAX_SEGMENTS):
        if encoded[position : position + 1] != b"\xff" or position + 11 > len(encoded):
            return None
        marker, length = encoded[position + 1], int.from_bytes(encoded[position + 2 : position + 4], "big")
        if marker == _START_OF_SCAN:
            if size is None:
                return None
            # A scan with all components is the only one, unless it is progressive.
            complete = not progressive and encoded[position + 4] == components
            return PlainJpeg(*size, orientation or 1, 1 if complete else encoded.count(b"\xff\xda", position))
        if length < 2:
            return None
        if marker in _FRAMES:
            if marker not in _PLAIN_FRAMES or size:
                return None
            height, width, components = struct.unpack_from(">HHB", encoded, position + 5)
            size, progressive = (width, height), marker == _PROGRESSIVE
        elif marker == _APP1:
            segment = encoded[position + 4 : position + 2 + length]
            if segment.startswith(b"Exif\0\0"):
                if orientation is not None:
                    return None
                orientation = _orientation(segment[6:])
                if orientation is None:
                    return None
            elif b"rientation" in segment:  # XMP may rotate a picture as well
                return None
        elif marker == _APP2 and encoded[position + 4 : position + 8] == b"MPF\0":
            return None  # several pictures in one file
        position += 2 + length
    return None


def is_quick(encoded: bytes) -> bool:
    """Return whether an image is a plain JPEG that decodes in less than about half a second."""
    jpeg = plain_jpeg(encoded)
    return jpeg is not None and jpeg.scans <= MAX_SCANS and jpeg.width * jpeg.height * jpeg.scans <= _QUICK_PIXELS


def is_usual(encoded: bytes) -> bool:
    """Return whether every decoder understands the samples of a plain JPEG alike.

    It has 8 bits a sample and is grey, or YCbCr whose colours have all, half or a quarter of the pixels. Whether three
    components are YCbCr or RGB is told by JFIF's marker, by Adobe's, and by the names of the components.
    """
    position, is_ycc = 2, None
    frame = b""
    while (marker := encoded[position + 1]) != _START_OF_SCAN:
        length = int.from_bytes(encoded[position + 2 : position + 4], "big")
        content = encoded[position + 4 : position + 2 + length]
        if marker in _FRAMES:
            frame = content
        elif marker == _APP0 and content.startswith(b"JFIF\0") and is_ycc is None:
            is_ycc = True
        elif marker == _APP14 and content.startswith(b"Adobe"):
            is_ycc = content[11:12] == b"\x01"
        position += 2 + length
    ids, samplings = frame[6::3], frame[7::3]
    if frame[0] != 8:
        return False
    if frame[5] == 1:
        return samplings == b"\x11"
    if frame[5] != 3 or len(ids) != 3 or not (ids == _YCC_IDS if is_ycc is None else is_ycc):
        return False
    return samplings[:1] in _LUMA_SAMPLINGS and samplings[1:] == b"\x11\x11"


def check_scans(encoded: bytes) -> None:
    """Refuse a JPEG with too many scans.

    Raises:
        ImageError: it has more than `MAX_SCANS`.
    """
    if encoded.count(b"\xff\xda") <= MAX_SCANS:
        return
    # What lies behind the picture, such as the video of a phone's moving picture, does not count.
    scans = 0
    marker = _MARKER.search(encoded, 2)
    while marker and encoded[marker.end() - 1] != _END_OF_IMAGE:
        scans += encoded[marker.end() - 1] == _START_OF_SCAN
        if scans > MAX_SCANS:
            raise ImageError(f"the JPEG has more than {MAX_SCANS} scans; save it again, not progressive", "scans")
        length = int.from_bytes(encoded[marker.end() : marker.end() + 2], "big")
        marker = _MARKER.search(encoded, marker.end() + length)


def _orientation(exif: bytes) -> int | None:
    """Return the orientation in EXIF's first directory, 1 where there is none, None where it is unusual or broken."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    try:
        if order is None:
            return None
        (start,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, start)
        entries = [struct.unpack_from(order + "HHIH", exif, start + 2 + 12 * number) for number in range(count)]
    except struct.error:
        return None
    rotations = [entry[1:] for entry in entries if entry[0] == _ORIENTATION]
    if not rotations:
        return 1
    kind, number, value = rotations[0]
    if len(rotations) > 1 or kind != _SHORT or number != 1:
        return None
    return int(value) if 1 <= value <= 8 else 1
