"""Validation images and their ground truth: COCO JSON, YOLO text files, or images alone.

Whatever the format, the truth becomes one COCO document whose category ids are the detector's class ids.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from triptych.errors import BuildError, ImageError
from triptych.vision.decode import SUFFIXES, image_files, read_header

OUTSIDE = 0.01
"""How far a YOLO number may lie outside 0..1: tools round, and boxes touch the image's edge."""


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
        is_crowd: it stands for many objects, and detections in it count neither way.
    """

    image: int
    label: int
    box_xywh: tuple[float, float, float, float]
    is_crowd: bool = False


def read_dataset(path: Path, class_names: Sequence[str], images: Path | None = None) -> Dataset:
    """Read validation images with their labels, as the detector numbers its classes.

    Args:
        path: a COCO JSON file; a YOLO `data.yaml` (its `val` split is taken); a folder that holds one of them; a YOLO
            folder, with `images/` and `labels/` or with the .txt files beside the images; or a folder of images alone.
        class_names: the detector's classes, by id.
        images: where the images of a COCO JSON lie; default: beside it, or in `images/` beside it.

    Raises:
        BuildError: there are no images, or the labels cannot be read or do not fit images or classes.
    """
    if not path.exists():
        raise BuildError(f"there are no labels {path}; name a COCO JSON, a YOLO data.yaml or a folder of images")
    if path.is_dir():
        path = _document_in(path) or path
    if path.is_dir():
        return _read_yolo_folders([path], class_names)
    if path.suffix.lower() == ".json":
        return _read_coco(path, class_names, images)
    if path.suffix.lower() in (".yaml", ".yml"):
        return _read_yolo_yaml(path, class_names)
    raise BuildError(f"{path.name} is neither a COCO .json, nor a YOLO .yaml, nor a folder; name one of them")


def read_image(image: Path) -> bytes:
    """The bytes of a validation image.

    Raises:
        BuildError: it cannot be read.
    """
    try:
        return image.read_bytes()
    except OSError as error:
        raise BuildError(f"the validation image {image} cannot be read: {error.strerror or error}") from error


def _document_in(folder: Path) -> Path | None:
    """The file that describes a folder, if there is one."""
    for pattern in ("data.yaml", "*.json"):
        found = sorted(folder.glob(pattern))
        if len(found) > 1:
            raise BuildError(f"{folder} holds {', '.join(path.name for path in found)}; name the one with the labels")
        if found:
            return found[0]
    return None


def _dataset(images: Sequence[Path], boxes: Sequence[Box], class_names: Sequence[str], source: Path) -> Dataset:
    """The truth as a COCO document. Boxes without area are left out: nothing can match them."""
    seen = [box for box in boxes if box.box_xywh[2] > 0 and box.box_xywh[3] > 0]
    if all(box.is_crowd for box in seen):
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
            for number, box in enumerate(seen, 1)
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(class_names)],
    }
    return Dataset(tuple(images), truth)


def _class_ids(names: Mapping[int, str], class_names: Sequence[str]) -> dict[int, int]:
    """Class ids by the ids that the labels use.

    Names count, in whatever case. But where there are as many of both, and no name that both have contradicts their
    order, the order counts: one set's `motorcycle` is the other's `motorbike`.
    """
    by_name = {
        key: number for key, name in names.items() for number, other in enumerate(class_names) if _same(name, other)
    }
    by_order = {key: number for number, key in enumerate(sorted(names))}
    agree = len(names) == len(class_names) and all(by_order[key] == number for key, number in by_name.items())
    return by_order if agree else by_name


def _same(name: str, other: str) -> bool:
    return name.strip().lower() == other.strip().lower()


def _listed(names: Sequence[str]) -> str:
    """Names for a message, the first few of them."""
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _other_classes(source: Path, names: Mapping[int, str], class_names: Sequence[str]) -> BuildError:
    return BuildError(
        f"{source.name} has the classes {_listed(list(names.values()))}, but the detector has {_listed(class_names)}; "
        "give the detector these names (`--names`), or name its own labels"
    )


# --- COCO


def _read_coco(path: Path, class_names: Sequence[str], images: Path | None) -> Dataset:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        entries = {int(entry["id"]): str(entry["file_name"]) for entry in document["images"]}
        names = {int(entry["id"]): str(entry["name"]) for entry in document["categories"]}
        rows = [_coco_row(row) for row in document["annotations"]]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise BuildError(f"{path} is not a COCO document of boxes ({reason}); export the labels again") from error
    except OSError as error:
        raise BuildError(f"cannot read {path}: {error.strerror or error}") from error
    if not entries:
        raise BuildError(f"{path} lists no images; export the labels again")
    files = _coco_files(path, list(entries.values()), images)
    classes = _class_ids(names, class_names)
    if not classes or any(category not in classes for _, category, _, _ in rows):
        raise _other_classes(path, names, class_names)
    index = {key: number for number, key in enumerate(entries)}
    strangers = sorted({image for image, _, _, _ in rows if image not in index})
    if strangers:
        raise BuildError(
            f"{path.name} has boxes of image {strangers[0]}, which it does not list among its {len(entries)} images; "
            "export the labels again"
        )
    boxes = [Box(index[image], classes[category], box, crowd) for image, category, box, crowd in rows]
    return _dataset(files, boxes, class_names, path)


def _coco_row(row: Mapping[str, Any]) -> tuple[int, int, tuple[float, float, float, float], bool]:
    """Image id, category id, box and whether it is a crowd."""
    left, top, width, height = (float(value) for value in row["bbox"])
    if not all(map(math.isfinite, (left, top, width, height))):
        raise ValueError(f"the bbox of image {row['image_id']} is {row['bbox']}")
    return int(row["image_id"]), int(row["category_id"]), (left, top, width, height), bool(row.get("iscrowd", 0))


def _coco_files(path: Path, names: Sequence[str], images: Path | None) -> list[Path]:
    """The image files, in the first folder that holds any of them."""
    folders = [images] if images else [path.parent, path.parent / "images"]
    folder = next((folder for folder in folders if any((folder / name).is_file() for name in names)), None)
    if folder is None:
        raise BuildError(
            f"none of the {len(names)} images of {path.name} is in {' or '.join(map(str, folders))} "
            f"({names[0]} is the first); name their folder with --images"
        )
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise BuildError(
            f"{len(missing)} of the {len(names)} images of {path.name} are not in {folder}, such as {missing[0]}; "
            "add them, or take them out of the labels"
        )
    return [folder / name for name in names]


# --- YOLO


def _read_yolo_yaml(path: Path, class_names: Sequence[str]) -> Dataset:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        listed = document["names"]
        names = {
            int(key): str(name) for key, name in (listed.items() if isinstance(listed, dict) else enumerate(listed))
        }
        splits = document["val"]
    except (yaml.YAMLError, OSError, ValueError, TypeError, KeyError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else str(error).split("\n", 1)[0]
        raise BuildError(f"{path} is not the data.yaml of a YOLO set ({reason}); it needs `val` and `names`") from error
    classes = _class_ids(names, class_names)
    # Its names are the trainer's own: none in common is another set, unless the detector never had names.
    is_known = any(_same(name, other) for name in names.values() for other in class_names)
    is_unnamed = all(re.fullmatch(r"(class )?\d+", name) for name in class_names)
    if not classes or not (is_known or is_unnamed):
        raise _other_classes(path, names, class_names)
    root = path.parent / (document.get("path") or "")
    folders = [root / split for split in ([splits] if isinstance(splits, str) else splits)]
    for number, folder in enumerate(folders):
        if folder.is_dir():
            continue
        # Roboflow writes `../valid/images` for what lies beside the file.
        beside = path.parent / str(folder.relative_to(root)).removeprefix("../")
        if not beside.is_dir():
            raise BuildError(f"the `val` split {folder} of {path.name} is no folder; correct `path` or `val` in it")
        folders[number] = beside
    return _read_yolo_folders(folders, class_names, classes, names)


def _read_yolo_folders(
    folders: Sequence[Path],
    class_names: Sequence[str],
    classes: Mapping[int, int] | None = None,
    names: Mapping[int, str] | None = None,
) -> Dataset:
    """Images with their text files; without `classes`, the files use the detector's own ids."""
    classes = {number: number for number in range(len(class_names))} if classes is None else classes
    names = dict(enumerate(class_names)) if names is None else names
    files: list[Path] = []
    boxes: list[Box] = []
    is_labelled = False
    for folder in folders:
        images, labels = _yolo_layout(folder)
        found = image_files(images)
        if not found:
            raise BuildError(f"there are no images in {images}; expected files like {_listed(sorted(SUFFIXES))}")
        texts = {text.stem: text for text in labels.glob("*.txt")} if labels.is_dir() else {}
        fitting = [image for image in found if image.stem in texts]
        if texts and not fitting and labels != images:
            example = next(iter(texts.values())).name
            raise BuildError(
                f"none of the {len(texts)} label files in {labels} fits one of the {len(found)} images in {images}: "
                f"{example} needs an image of that name"
            )
        for image in fitting:
            number = len(files) + found.index(image)
            boxes += _yolo_boxes(texts[image.stem], image, number, classes, names)
        files += found
        is_labelled = is_labelled or bool(fitting)
    return _dataset(files, boxes, class_names, folders[0]) if is_labelled else Dataset(tuple(files), None)


def _yolo_layout(folder: Path) -> tuple[Path, Path]:
    """Where the images of a folder lie, and where their labels do."""
    if (folder / "images").is_dir():
        folder = folder / "images"
    parts = list(folder.parts)
    if "images" in parts:
        last = len(parts) - 1 - parts[::-1].index("images")
        labels = Path(*parts[:last], "labels", *parts[last + 1 :])
        if labels.is_dir():
            return folder, labels
    return folder, folder


def _yolo_boxes(
    text: Path, image: Path, number: int, classes: Mapping[int, int], names: Mapping[int, str]
) -> Iterator[Box]:
    """The boxes of one text file; rows are `class centre_x centre_y width height`, in parts of the image."""
    rows = [(line, row.split()) for line, row in enumerate(text.read_text(encoding="utf-8").splitlines(), 1)]
    rows = [(line, row) for line, row in rows if row]
    if not rows:
        return
    image_width, image_height = _upright_size(image)
    for line, row in rows:
        try:
            key, *numbers = int(row[0]), *map(float, row[1:])
            centre_x, centre_y, width, height = numbers
        except ValueError:
            key, numbers = -1, [math.nan]
        if not all(-OUTSIDE <= value <= 1 + OUTSIDE for value in numbers):
            raise BuildError(
                f"line {line} of {text} is {' '.join(row)!r}; expected `class centre_x centre_y width height`, "
                "the last four in 0..1"
            )
        if key not in classes:
            found = f"class {key} ({names[key]})" if key in names else f"class {key}"
            raise BuildError(
                f"line {line} of {text} has {found}, but the detector's classes are "
                f"{_listed([f'{number} {names[number]}' for number in sorted(classes)])}; "
                "correct the labels, or name those that it was trained with"
            )
        left, top = (centre_x - width / 2) * image_width, (centre_y - height / 2) * image_height
        yield Box(number, classes[key], (left, top, width * image_width, height * image_height))


def _upright_size(image: Path) -> tuple[int, int]:
    """Width and height once EXIF's rotation is applied, as labels count."""
    try:
        header = read_header(read_image(image))
    except ImageError as error:
        raise BuildError(f"the validation image {image} cannot be read: {error}") from error
    turned = header.orientation >= 5 and header.format != "TIFF"
    return (header.height, header.width) if turned else (header.width, header.height)
