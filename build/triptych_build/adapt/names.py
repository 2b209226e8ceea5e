"""The names of a detector's classes, by class id."""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from pathlib import Path

import onnx

from triptych.errors import BuildError
from triptych_build.adapt.coco import COCO, COLUMNS, coco_by_id
from triptych_build.adapt.source import metadata
from triptych_build.ultralytics import ENGINES, engine_names


def unnamed(number: int) -> str:
    """Return what stands for the name of a class that has none."""
    return f"class {number}"


def names_in_metadata(model: onnx.ModelProto) -> dict[int, str]:
    """Return the names that a source carries, by id: `{0: 'open', …}` or a list, as YOLO exports write them.

    Empty where there are none that can be read.
    """
    text = metadata(model, "names") or "{}"
    try:
        names = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        try:
            names = json.loads(text)
        except ValueError:
            return {}
    if isinstance(names, (list, tuple)):
        names = dict(enumerate(names))
    try:
        by_id = {int(number): str(name) for number, name in names.items()}
    except (AttributeError, TypeError, ValueError):
        return {}
    return by_id if all(number >= 0 for number in by_id) else {}


def class_names(by_id: dict[int, str], count: int | None, given: Sequence[str] | None) -> tuple[str, ...]:
    """Return the user's class names, else the source's by id, else numbers; an id without a name gets its number.

    A head with a column for each of COCO's ids has COCO's 80 names put to these.

    Args:
        by_id: the names that the source carries.
        count: the number of its classes, or None if its shape does not show it.
        given: the user's names.

    Raises:
        BuildError: there are no names, or they name other classes than the source has.
    """
    if count == COLUMNS and COCO in (tuple(given or ()), tuple(by_id.values())):
        by_id, given = coco_by_id(), None
    if given is not None:
        if count is not None and len(given) != count:
            raise BuildError(
                f"the model has {count} classes, but {len(given)} names were given; give one name for each"
            )
        return tuple(given)
    if count is None and not by_id:
        raise BuildError(
            "the classes are neither in the model's shape nor in its metadata; name them with --names FILE, one for "
            "each label from 0 on; torchvision's 0 is the background"
        )
    last = max(by_id, default=-1)
    if by_id and count is not None and count not in (last + 1, len(by_id)):
        raise BuildError(
            f"the model's metadata names classes up to {last}, but its head has {count} classes as it is read; if it "
            "is another head, choose it with --head; if it gives key points, angles or masks, export a model that only "
            "detects; if the names are wrong, give them with --names FILE"
        )
    return tuple(by_id.get(number, unnamed(number)) for number in range(count or last + 1))


def missing(by_id: dict[int, str], names: Sequence[str]) -> list[int]:
    """Return the ids that the source's names leave out."""
    return [number for number in range(len(names)) if number not in by_id] if by_id else []


def read_names(path: Path) -> list[str]:
    """Read class names from a text file, one a line, or from the header of an Ultralytics `.engine`.

    Raises:
        BuildError: the file is missing, or has none.
    """
    if not path.is_file():
        raise BuildError(f"there is no file of class names {path}")
    if path.suffix.lower() in ENGINES:
        return engine_names(path)
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise BuildError(f"{path} is not UTF-8 text; write the class names one a line") from error
    if not names:
        raise BuildError(f"{path} holds no class names; write one a line")
    return names
