"""Read validation images and their ground truth: COCO JSON, YOLO text files, or images alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from triptych.errors import BuildError
from triptych_build.verify.coco import read_coco
from triptych_build.verify.truth import Dataset, is_hidden
from triptych_build.verify.yolo import read_yolo_folder, read_yolo_yaml


def read_dataset(path: Path, class_names: Sequence[str], images: Path | None = None) -> Dataset:
    """Read validation images with their labels, as the detector numbers its classes.

    Args:
        path: a COCO JSON file; a YOLO `data.yaml` (its `val` split is taken); a folder that holds one of them; a YOLO
            folder, with `images/` and `labels/` or with the .txt files next to the images; or a folder of images alone.
        class_names: the detector's classes, by id.
        images: where the images of a COCO JSON lie; default: its own folder, or `images/` in it.

    Raises:
        BuildError: there are no images, or the labels cannot be read or do not fit images or classes.
    """
    if not path.exists():
        raise BuildError(f"there are no labels {path}; name a COCO JSON, a YOLO data.yaml or a folder of images")
    if path.is_dir():
        path = _document_in(path) or path
    if path.is_dir():
        return read_yolo_folder(path, class_names)
    if path.suffix.lower() == ".json":
        return read_coco(path, class_names, images)
    if path.suffix.lower() in (".yaml", ".yml"):
        return read_yolo_yaml(path, class_names)
    raise BuildError(f"{path.name} is neither a COCO .json, nor a YOLO .yaml, nor a folder; name one of them")


def _document_in(folder: Path) -> Path | None:
    """Return the file that describes a folder, if there is one."""
    for pattern in ("data.y*ml", "dataset.y*ml", "*.json"):
        files = sorted(path for path in folder.glob(pattern) if not is_hidden(path))
        if len(files) > 1:
            raise BuildError(f"{folder} holds {', '.join(path.name for path in files)}; name the one with the labels")
        if files:
            return files[0]
    return None
