"""What a PGM or PPM says of the range of its values, which OpenCV leaves out of account."""

from __future__ import annotations

import re

_SPACE = rb"(?:\s|#[^\r\n]*[\r\n])+"
# Only the binary ones: OpenCV scales what is written in digits.
_HEADER = re.compile(rb"P[56]" + _SPACE + rb"\d+" + _SPACE + rb"\d+" + _SPACE + rb"(\d{1,5})\s")


def white_of_pnm(encoded: bytes) -> int | None:
    """Return the value of white in a binary PGM or PPM; None where it is 255 or 65535, and for every other file."""
    header = _HEADER.match(encoded)
    white = int(header[1]) if header else 255
    return white if 0 < white < 65535 and white != 255 else None
