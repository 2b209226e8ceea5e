"""Ground truth in YOLO's text files, with a `data.yaml` or without."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import yaml

from triptych.errors import BuildError, ImageError
from triptych.vision.decode import SUFFIXES, image_files, read_header
from triptych_build.verify.truth import (
    Box,
    Dataset,
    class_ids,
    listed,
    make_dataset,
    other_classes,
    read_image,
    same_name,
)

OUTSIDE = 0.01
"""How far a YOLO number may lie outside 0..1: tools round, and boxes touch the image's edge."""


def read_yolo_yaml(path: Path, class_names: Sequence[str]) -> Dataset:
    """Read the `val` split of a YOLO `data.yaml`; see `datasets.read_dataset`."""
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
    classes = class_ids(names, class_names)
    # Its names are the trainer's own: with none in common it is another set, unless the detector never had names.
    is_known = any(same_name(name, other) for name in names.values() for other in class_names)
    is_unnamed = all(re.fullmatch(r"(class )?\d+", name) for name in class_names)
    if not classes or not (is_known or is_unnamed):
        raise other_classes(path, names, class_names)
    root = path.parent / (document.get("path") or "")
    folders = [root / split for split in ([splits] if isinstance(splits, str) else splits)]
    for number, folder in enumerate(folders):
        if folder.is_dir():
            continue
        # Roboflow writes `../valid/images` for a folder next to the file.
        near = path.parent / str(folder.relative_to(root)).removeprefix("../")
        if not near.is_dir():
            raise BuildError(f"the `val` split {folder} of {path.name} is no folder; correct `path` or `val` in it")
        folders[number] = near
    return read_yolo_folders(folders, class_names, classes, names)


def read_yolo_folders(
    folders: Sequence[Path],
    class_names: Sequence[str],
    classes: Mapping[int, int] | None = None,
    names: Mapping[int, str] | None = None,
) -> Dataset:
    """Read images with their text files; without `classes`, the files use the detector's own ids."""
    classes = {number: number for number in range(len(class_names))} if classes is None else classes
    names = dict(enumerate(class_names)) if names is None else names
    files: list[Path] = []
    boxes: list[Box] = []
    is_labelled = False
    for folder in folders:
        images, labels = _yolo_layout(folder)
        pictures = image_files(images)
        if not pictures:
            raise BuildError(f"there are no images in {images}; expected files like {listed(sorted(SUFFIXES))}")
        texts = {text.stem: text for text in labels.glob("*.txt")} if labels.is_dir() else {}
        fitting = [image for image in pictures if image.stem in texts]
        if texts and not fitting and labels != images:
            example = next(iter(texts.values())).name
            raise BuildError(
                f"none of the {len(texts)} label files in {labels} fits one of the {len(pictures)} images in {images}: "
                f"{example} needs an image of that name"
            )
        for image in fitting:
            number = len(files) + pictures.index(image)
            boxes += _yolo_boxes(texts[image.stem], image, number, classes, names)
        files += pictures
        is_labelled = is_labelled or bool(fitting)
    return make_dataset(files, boxes, class_names, folders[0]) if is_labelled else Dataset(tuple(files), None)


def _yolo_layout(folder: Path) -> tuple[Path, Path]:
    """Return where the images of a folder lie, and where their labels lie."""
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
    """Yield the boxes of one text file; rows are `class centre_x centre_y width height`, in parts of the image."""
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
            label = f"class {key} ({names[key]})" if key in names else f"class {key}"
            raise BuildError(
                f"line {line} of {text} has {label}, but the detector's classes are "
                f"{listed([f'{number} {names[number]}' for number in sorted(classes)])}; "
                "correct the labels, or name the ones that it was trained with"
            )
        left, top = (centre_x - width / 2) * image_width, (centre_y - height / 2) * image_height
        yield Box(number, classes[key], (left, top, width * image_width, height * image_height))


def _upright_size(image: Path) -> tuple[int, int]:
    """Return width and height once EXIF's rotation is applied, as labels have it."""
    try:
        header = read_header(read_image(image))
    except ImageError as error:
        raise BuildError(f"the validation image {image} cannot be read: {error}") from error
    turned = header.orientation >= 5 and header.format != "TIFF"
    return (header.height, header.width) if turned else (header.width, header.height)
