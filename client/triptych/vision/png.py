"""What a PNG's chunks say, without decompressing any."""

from __future__ import annotations

from typing import NamedTuple


class Chunks(NamedTuple):
    """What matters of a PNG's chunks.

    Attributes:
        whole: whether the last chunk is there.
        late_exif: whether EXIF may stand behind the pixels.
        animated: whether the file may be an animation.
    """

    whole: bool
    late_exif: bool
    animated: bool


def read_chunks(encoded: bytes) -> Chunks:
    """Look at a PNG's chunks up to the first that does not fit in the file.

    OpenCV allocates a chunk's memory before it looks whether the chunk is there. A few forged bytes would cost seconds
    and 2 GB.
    """
    kinds: set[bytes] = set()
    late_exif = False
    position = 8
    while b"IEND" not in kinds and position + 12 <= len(encoded):
        end = position + 12 + int.from_bytes(encoded[position : position + 4], "big")
        if end > len(encoded):
            break
        kind, start = encoded[position + 4 : position + 8], encoded[position + 8 : position + 32]
        late_exif |= b"IDAT" in kinds and (
            kind == b"eXIf" or start.startswith((b"XML:com.adobe.xmp", b"Raw profile type exif"))
        )
        kinds.add(kind)
        position = end
    # OpenCV may look for them behind the end as well.
    animated = any(kind in kinds or kind in encoded[position:] for kind in (b"acTL", b"fcTL", b"fdAT"))
    return Chunks(b"IEND" in kinds, late_exif, animated)
