"""Ground truth in COCO's JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from triptych.errors import BuildError
from triptych_build.verify.truth import Box, Dataset, class_ids, make_dataset, other_classes


def read_coco(path: Path, class_names: Sequence[str], images: Path | None) -> Dataset:
    """Read a COCO JSON; see `datasets.read_dataset`."""
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


def _coco_row(row: Mapping[str, Any]) -> tuple[int, int, tuple[float, float, float, float], bool]:
    """Return image id, category id, box and whether it is a crowd."""
    left, top, width, height = (float(value) for value in row["bbox"])
    if not all(map(math.isfinite, (left, top, width, height))):
        raise ValueError(f"the bbox of image {row['image_id']} is {row['bbox']}")
    return int(row["image_id"]), int(row["category_id"]), (left, top, width, height), bool(row.get("iscrowd", 0))


def _coco_files(path: Path, names: Sequence[str], images: Path | None) -> list[Path]:
    """Return the image files, in the first folder that holds any of them."""
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
