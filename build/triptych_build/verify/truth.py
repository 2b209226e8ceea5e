"""Validation images and their ground truth, whatever format it came in.

The truth is one COCO document whose category ids are the detector's class ids.
"""

from __future__ import annotations

import codecs
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
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


def read_text(path: Path) -> str:
    """Read a file of labels: UTF-8, or UTF-16 with its mark, as Windows writes it; the mark goes.

    Raises:
        BuildError: it cannot be read, or is no such text.
    """
    try:
        content = path.read_bytes()
        is_wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return content.decode("utf-16" if is_wide else "utf-8-sig")
    except OSError as error:
        raise BuildError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise BuildError(f"{path} is no text in UTF-8 or UTF-16; save the labels again as UTF-8") from error


def find_listed(name: str, folders: Sequence[Path], least_parts: int = 1) -> Path | None:
    """Return the file or folder that a path in somebody's labels means on this machine; None if there is none.

    It may be written on another machine or for Windows. So the path is tried as it is, and then without its first
    folders, in each of `folders`; at least `least_parts` of it stay.
    """
    parts = [part for part in PurePosixPath(unquoted(name)).parts if part not in (".", "..")]
    tries = [Path(unquoted(name))] if Path(unquoted(name)).is_absolute() else []
    tries += [folder / unquoted(name) for folder in folders]
    starts = range(max(len(parts) - least_parts, 0) + 1)
    tries += [folder.joinpath(*parts[start:]) for start in starts for folder in folders]
    return next((path for path in tries if path.exists()), None)


def unquoted(name: str) -> str:
    """Return a path of labels with the slashes of this machine."""
    return name.strip().replace("\\", "/")


def is_hidden(path: Path) -> bool:
    """Return whether a file is not meant: `._a.jpg` is what macOS keeps beside a.jpg on foreign disks."""
    return path.name.startswith(".")


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

    Names are matched as they are written, or else in whatever case. But where both have as many classes, and no name
    that both have contradicts the order, the order is taken: one set's `motorcycle` is the other's `motorbike`, and
    classes of the same name stay apart.

    Raises:
        BuildError: a name of the labels fits several classes of the detector, or several fit one.
    """
    fitting = {key: _fitting(name, class_names) for key, name in names.items()}
    by_order = {key: number for number, key in enumerate(sorted(names))}
    if len(names) == len(class_names) and all(by_order[key] in found for key, found in fitting.items() if found):
        return by_order
    for key, found in fitting.items():
        twins = [other for other, same in fitting.items() if same and same == found]
        if len(found) > 1 or len(twins) > 1:
            raise BuildError(
                f"the labels have {len(twins)} and the detector has {len(found)} classes called {names[key]!r}, so "
                "which is which cannot be told; give both the same classes in the same order"
            )
    return {key: found[0] for key, found in fitting.items() if found}


def _fitting(name: str, class_names: Sequence[str]) -> list[int]:
    """Return the detector's classes of a name: those that are written the same, or else in whatever case."""
    exactly = [number for number, other in enumerate(class_names) if name.strip() == other.strip()]
    return exactly or [number for number, other in enumerate(class_names) if same_name(name, other)]


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
