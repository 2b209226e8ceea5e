"""Ground truth in YOLO's text files, with a `data.yaml` or without."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from triptych.errors import BuildError, ImageError
from triptych.vision.decode import SUFFIXES, read_header
from triptych_build.verify.truth import (
    Box,
    Dataset,
    class_ids,
    find_listed,
    is_hidden,
    listed,
    make_dataset,
    other_classes,
    read_image,
    read_text,
    same_name,
    unquoted,
)

OUTSIDE = 0.01
"""How far a YOLO number may lie outside 0..1: tools round, and boxes touch the image's edge."""


def read_yolo_yaml(path: Path, class_names: Sequence[str]) -> Dataset:
    """Read the `val` split of a YOLO `data.yaml`; see `datasets.read_dataset`."""
    try:
        document = yaml.safe_load(read_text(path)) or {}
        given = document["names"]
        names = {int(key): str(name) for key, name in (given.items() if isinstance(given, dict) else enumerate(given))}
        val = document["val"]
        splits = [str(split) for split in ([val] if isinstance(val, str) else val)]
        columns = 5 if document.get("kpt_shape") else None
        root = path.parent / unquoted(str(document.get("path") or ""))
    except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else str(error).split("\n", 1)[0]
        raise BuildError(f"{path} is not the data.yaml of a YOLO set ({reason}); it needs `val` and `names`") from error
    classes = class_ids(names, class_names)
    # Its names are the trainer's own: with none in common it is another set, unless the detector never had names.
    is_known = any(same_name(name, other) for name in names.values() for other in class_names)
    is_unnamed = all(re.fullmatch(r"(class )?\d+", name) for name in class_names)
    if not classes or not (is_known or is_unnamed):
        raise other_classes(path, names, class_names)
    images = [image for split in splits for image in _split_images(split, root, path)]
    return _read_images(images, path, class_names, _Rows(classes, names, columns), needs_labels=True)


def _split_images(split: str, root: Path, path: Path) -> list[Path]:
    """Return the images of a split: of a folder, or of a .txt that lists them."""
    # Of a path of another machine two folders must be left: `images` alone would hold the other splits too.
    found = find_listed(split, [root, path.parent], least_parts=2)
    if found is None:
        raise BuildError(
            f"the `val` split {split} of {path.name} is not here, neither as it is nor within {path.parent}; "
            "correct `path` or `val` in it"
        )
    if found.is_dir():
        return _images_within(found)
    if found.suffix.lower() != ".txt":
        raise BuildError(f"the `val` split {found} of {path.name} is no folder and no .txt that lists images")
    listing = [line for line in read_text(found).splitlines() if line.strip()]
    images = [find_listed(line, [found.parent, root]) for line in listing]
    missing = [line for line, image in zip(listing, images, strict=True) if image is None]
    if missing or not listing:
        example = f", such as {missing[0].strip()}" if missing else ""
        raise BuildError(f"{len(missing)} of the {len(listing)} images that {found} lists are not here{example}")
    return [image for image in images if image]


def read_yolo_folder(folder: Path, class_names: Sequence[str]) -> Dataset:
    """Read the images of a folder with their text files, which use the detector's own class ids."""
    images = folder / "images" if (folder / "images").is_dir() else folder
    classes = {number: number for number in range(len(class_names))}
    return _read_images(_images_within(images), images, class_names, _Rows(classes, dict(enumerate(class_names))))


def _images_within(folder: Path) -> list[Path]:
    """Return the images of a folder and of those in it."""
    images = sorted(
        path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and not is_hidden(path) and path.is_file()
    )
    splits = {path.relative_to(folder).parts[0].lower() for path in images if path.parent != folder}
    if "train" in splits and len(splits) > 1:
        raise BuildError(f"{folder} holds {', '.join(sorted(splits))}; name the one to verify with")
    if not images:
        raise BuildError(f"there are no images in {folder}; expected files like {listed(sorted(SUFFIXES))}")
    return images


@dataclass(frozen=True)
class _Rows:
    """How the rows of text files are read.

    Attributes:
        classes: the detector's class ids by those of the files.
        names: the files' names by id.
        columns: how many columns count, where others follow that are no outline; None: all.
    """

    classes: Mapping[int, int]
    names: Mapping[int, str]
    columns: int | None = None


def _read_images(
    images: Sequence[Path], source: Path, class_names: Sequence[str], rows: _Rows, *, needs_labels: bool = False
) -> Dataset:
    """Read the text file of each image; images without one show nothing, unless none has one."""
    texts = [_text_of(image) for image in images]
    if not any(texts):
        labels = {_label_folder(image.parent) for image in images}
        unused = next((path for folder in labels for path in _text_files(folder)), None)
        beside = next((path for image in images for path in [image.with_suffix(".xml")] if path.is_file()), None)
        if unused and unused.parent not in {image.parent for image in images}:
            count = sum(len(_text_files(folder)) for folder in labels)
            raise BuildError(
                f"none of the {count} label files in {unused.parent} fits one of the {len(images)} images in {source}: "
                f"{unused.name} needs an image of that name"
            )
        if beside:
            raise BuildError(f"{beside} is no label file that is read; export the labels as COCO JSON or for YOLO")
        if needs_labels:
            raise BuildError(f"{source} names {len(images)} images, and there is no label file for any of them")
        return Dataset(tuple(images), None)
    boxes = [
        box
        for number, (image, text) in enumerate(zip(images, texts, strict=True))
        if text
        for box in _yolo_boxes(text, image, number, rows)
    ]
    return make_dataset(images, boxes, class_names, source)


def _label_folder(folder: Path) -> Path:
    """Return where the labels of a folder's images lie: the last `images` of its path is `labels`, or beside them."""
    parts = list(folder.parts)
    if "images" in parts:
        last = len(parts) - 1 - parts[::-1].index("images")
        labels = Path(*parts[:last], "labels", *parts[last + 1 :])
        if labels.is_dir():
            return labels
    return folder


def _text_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.suffix.lower() == ".txt" and not is_hidden(path))


def _text_of(image: Path) -> Path | None:
    """Return the text file of an image."""
    folder = _label_folder(image.parent)
    tries = (folder / f"{image.stem}{suffix}" for suffix in (".txt", ".TXT", ".Txt"))
    return next((path for path in tries if path.is_file()), None)


def _yolo_boxes(text: Path, image: Path, number: int, how: _Rows) -> Iterator[Box]:
    """Yield the boxes of one text file.

    Rows are `class centre_x centre_y width height`, in parts of the image, or `class x y x y x y …`, an outline, whose
    box is taken.
    """
    rows = [(line, row.split()) for line, row in enumerate(read_text(text).splitlines(), 1)]
    rows = [(line, row[: how.columns]) for line, row in rows if row]
    if not rows:
        return
    image_width, image_height = _upright_size(image)
    for line, row in rows:
        try:
            key, numbers = float(row[0]), [float(value) for value in row[1:]]
        except ValueError:
            key, numbers = math.nan, []
        is_box, is_outline = len(numbers) == 4, len(numbers) >= 6 and len(numbers) % 2 == 0
        is_inside = all(-OUTSIDE <= value <= 1 + OUTSIDE for value in numbers)
        if not key.is_integer() or not (is_box or is_outline) or not is_inside:
            shown = " ".join(row)
            raise BuildError(
                f"line {line} of {text} is {shown[:60] + ('…' if len(shown) > 60 else '')!r}; expected "
                "`class centre_x centre_y width height`, the last four in 0..1, or the points of an outline"
            )
        if key not in how.classes:
            known = how.names.get(int(key))
            label = f"class {int(key)} ({known})" if known else f"class {int(key)}"
            raise BuildError(
                f"line {line} of {text} has {label}, but the detector's classes are "
                f"{listed([f'{number} {how.names[number]}' for number in sorted(how.classes)])}; "
                "correct the labels, or name the ones that it was trained with"
            )
        if is_outline:
            left, top, right, bottom = min(numbers[::2]), min(numbers[1::2]), max(numbers[::2]), max(numbers[1::2])
            width, height = right - left, bottom - top
        else:
            centre_x, centre_y, width, height = numbers
            left, top = centre_x - width / 2, centre_y - height / 2
        corner, size = (left * image_width, top * image_height), (width * image_width, height * image_height)
        yield Box(number, how.classes[int(key)], (*corner, *size))


def _upright_size(image: Path) -> tuple[int, int]:
    """Return width and height once EXIF's rotation is applied, as labels have it."""
    try:
        return read_header(read_image(image)).upright
    except ImageError as error:
        raise BuildError(f"the validation image {image} cannot be read: {error}") from error
