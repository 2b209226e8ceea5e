"""Ground truth in COCO's JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from triptych.errors import BuildError
from triptych_build.verify.truth import Box, Dataset, class_ids, find_listed, make_dataset, other_classes, read_text


def read_coco(path: Path, class_names: Sequence[str], images: Path | None) -> Dataset:
    """Read a COCO JSON; see `datasets.read_dataset`."""
    try:
        document = json.loads(read_text(path))
        entries = _by_id(document["images"], "file_name")
        names = _by_id(document["categories"], "name")
        rows = [_coco_row(row) for row in document["annotations"]]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise BuildError(f"{path} is not a COCO document of boxes ({reason}); export the labels again") from error
    if not entries:
        raise BuildError(f"{path} lists no images; export the labels again")
    files = _coco_files(path, list(entries.values()), images)
    classes = class_ids(names, class_names)
    if not classes or any(category not in classes for _, category, _, _ in rows):
        raise other_classes(path, names, class_names)
    index = {key: number for number, key in enumerate(entries)}
    unlisted = sorted({image for image, _, _, _ in rows if image not in index})
    if unlisted:
        raise BuildError(
            f"{path.name} has boxes of image {unlisted[0]}, which it does not list among its {len(entries)} images; "
            "export the labels again"
        )
    boxes = [Box(index[image], classes[category], box, crowd) for image, category, box, crowd in rows]
    return make_dataset(files, boxes, class_names, path)


def _by_id(entries: Sequence[Mapping[str, Any]], field: str) -> dict[int, str]:
    """Return a field of the entries by their ids."""
    found: dict[int, str] = {}
    for entry in entries:
        if int(entry["id"]) in found:
            raise ValueError(f"the id {entry['id']} stands for {found[int(entry['id'])]!r} and {entry[field]!r}")
        found[int(entry["id"])] = str(entry[field])
    return found


def _coco_row(row: Mapping[str, Any]) -> tuple[int, int, tuple[float, float, float, float], bool]:
    """Return image id, category id, box and whether it is a crowd."""
    left, top, width, height = (float(value) for value in row["bbox"])
    if not all(map(math.isfinite, (left, top, width, height))):
        raise ValueError(f"the bbox of image {row['image_id']} is {row['bbox']}")
    return int(row["image_id"]), int(row["category_id"]), (left, top, width, height), bool(row.get("iscrowd", 0))


def _coco_files(path: Path, names: Sequence[str], images: Path | None) -> list[Path]:
    """Return the image files; their paths may be those of another machine."""
    folders = [images] if images else [path.parent, path.parent / "images"]
    found = [find_listed(name, folders) for name in names]
    missing = [name for name, file in zip(names, found, strict=True) if file is None]
    if len(missing) == len(names):
        raise BuildError(
            f"none of the {len(names)} images of {path.name} is in {' or '.join(map(str, folders))} "
            f"({names[0]} is the first); name their folder with --images"
        )
    if missing:
        raise BuildError(
            f"{len(missing)} of the {len(names)} images of {path.name} are not in {folders[0]}, such as {missing[0]}; "
            "add them, or take them out of the labels"
        )
    return [file for file in found if file]
