"""Pictures with their detections drawn into them, written next to each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from triptych.detections import Detections
from triptych.errors import ImageError
from triptych.files import atomic_write
from triptych.opencv import cv2

QUALITY = 92
"""Of the JPEGs that are written."""


def save_paths(images: Sequence[Path], directory: Path) -> list[Path]:
    """Return where the picture of each image goes: `<stem>.jpg`, or `<stem>-2.jpg` and so on where that is taken.

    A path is taken by an earlier image of the same run, or where it is one of the images itself.
    """
    taken = {image.resolve() for image in images}
    targets = []
    for image in images:
        target, number = directory.resolve() / f"{image.stem}.jpg", 1
        while target in taken:
            number += 1
            target = target.with_name(f"{image.stem}-{number}.jpg")
        taken.add(target)
        targets.append(directory / target.name)
    return targets


def save(detections: Detections, target: Path) -> Detections:
    """Write the picture of an image that was read from a file, with its boxes.

    Returns:
        The same detections; a failure with the reason where the picture could not be drawn or written.
    """
    if detections.error or detections.source is None:
        return detections
    try:
        _write_jpeg(detections, detections.source, target)
    except ImageError as error:
        return Detections.failed(str(error), detections.class_names, detections.source)
    return detections


def _write_jpeg(detections: Detections, source: str, target: Path) -> None:
    picture = cv2.cvtColor(detections.draw(source), cv2.COLOR_RGB2BGR)
    encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
    try:
        with atomic_write(target) as aside:
            aside.write_bytes(encoded)
    except OSError as error:
        raise ImageError(f"{target} cannot be written: {error.strerror}") from error
