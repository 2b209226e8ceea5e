"""Validation images and their ground truth, whatever format it came in.

The truth is one COCO document whose category ids are the detector's class ids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triptych.errors import BuildError


@dataclass(frozen=True)
class Dataset:
    """Validation images, and their ground truth where there is one.

    Attributes:
        images: their files.
        truth: a COCO document: image ids 1..n in the order of `images`, category ids are class ids of the detector
            (from 0 on); None without labels.
    """

    images: tuple[Path, ...]
    truth: dict[str, Any] | None


@dataclass(frozen=True)
class Box:
    """One box of the truth.

    Attributes:
        image: index of its image.
        label: class id of the detector.
        box_xywh: left, top, width and height in pixels.
        is_crowd: it stands for many objects, and detections in it count neither as right nor as wrong.
    """

    image: int
    label: int
    box_xywh: tuple[float, float, float, float]
    is_crowd: bool = False


def read_image(image: Path) -> bytes:
    """Read the bytes of a validation image.

    Raises:
        BuildError: it cannot be read.
    """
    try:
        return image.read_bytes()
    except OSError as error:
        raise BuildError(f"the validation image {image} cannot be read: {error.strerror or error}") from error


def make_dataset(images: Sequence[Path], boxes: Sequence[Box], class_names: Sequence[str], source: Path) -> Dataset:
    """Return images with their boxes as a COCO document. Boxes without area are left out: nothing can match them.

    Raises:
        BuildError: there is no box.
    """
    with_area = [box for box in boxes if box.box_xywh[2] > 0 and box.box_xywh[3] > 0]
    if all(box.is_crowd for box in with_area):
        raise BuildError(f"the labels of {source} hold no box, so accuracy has no meaning; label the images first")
    truth = {
        "images": [{"id": number, "file_name": path.name} for number, path in enumerate(images, 1)],
        "annotations": [
            {
                "id": number,
                "image_id": box.image + 1,
                "category_id": box.label,
                "bbox": list(box.box_xywh),
                "area": box.box_xywh[2] * box.box_xywh[3],
                "iscrowd": int(box.is_crowd),
            }
            for number, box in enumerate(with_area, 1)
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(class_names)],
    }
    return Dataset(tuple(images), truth)


def class_ids(names: Mapping[int, str], class_names: Sequence[str]) -> dict[int, int]:
    """Return the detector's class ids by the ids that the labels use.

    Names are matched, in whatever case. But where both have as many classes, and no name that both have contradicts
    the order, the order is taken: one set's `motorcycle` is the other's `motorbike`.
    """
    by_name = {
        key: number for key, name in names.items() for number, other in enumerate(class_names) if same_name(name, other)
    }
    by_order = {key: number for number, key in enumerate(sorted(names))}
    agree = len(names) == len(class_names) and all(by_order[key] == number for key, number in by_name.items())
    return by_order if agree else by_name


def same_name(name: str, other: str) -> bool:
    """Return whether two class names are the same, in whatever case."""
    return name.strip().lower() == other.strip().lower()


def listed(names: Sequence[str]) -> str:
    """Return names for a message, the first few of them."""
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def other_classes(source: Path, names: Mapping[int, str], class_names: Sequence[str]) -> BuildError:
    """Return an error that says which classes the labels have, and which the detector."""
    return BuildError(
        f"{source.name} has the classes {listed(list(names.values()))}, but the detector has {listed(class_names)}; "
        "give the detector these names (`--names`), or name the labels that it was trained with"
    )
