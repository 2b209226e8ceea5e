"""Images that a detector was calibrated on, among those that it is to be verified with."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from triptych_build.verify.reference import decode_upright
from triptych_build.verify.truth import read_image


def shared_images(images: Sequence[Path], calibration: Sequence[Path]) -> list[str]:
    """Name the images that are among the calibration images, whatever their files are called.

    What counts is the picture: a copy under another name, without its metadata or saved again without loss is found.
    One that was saved again with loss, resized or cropped is another picture.

    Raises:
        BuildError: an image cannot be read.
    """
    known = {_picture(path): path for path in calibration}
    twins = [(image, known.get(_picture(image))) for image in images] if known else []
    return [f"{image.name} (calibrated on as {twin})" for image, twin in twins if twin]


def _picture(path: Path) -> str:
    """Return a hash of the pixels and their shape."""
    pixels = decode_upright(read_image(path))
    return hashlib.sha256(str(pixels.shape).encode() + pixels.tobytes()).hexdigest()
