"""Rewrite a detector's ONNX into the contract: uint8 pixels [N, H, W, 3] in, candidates [N, K, 6] out.

Normalisation and channel order go to the front of the graph, scoring, top-k and box decoding to its end, so that
preprocess and postprocess never know which detector runs. Only plain ONNX operators are added: the same file runs
on TensorRT, ONNX Runtime and OpenVINO.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import onnx
import onnx.checker

from triptych.contract import DetectorSpec, Placement
from triptych.errors import BuildError
from triptych.files import atomic_write, sha256
from triptych_build.adapt import graph, heads
from triptych_build.adapt.batch import BATCH, open_batch
from triptych_build.adapt.heads import Head, Normalization, Order, Source
from triptych_build.adapt.onnx_file import Adapted, add_record, read_adapted, read_onnx, tidied
from triptych_build.adapt.source import class_names, describe_source, fix_size, image_input
from triptych_build.ultralytics import ENGINES, engine_names

T = TypeVar("T")


@dataclass(frozen=True)
class Overrides:
    """What the user knows better than the family's habits; None leaves the habit in place.

    `keep_batch` leaves a batch that the source has fixed at 1 as it is, to be served image by image.
    """

    head: str | None = None
    size: tuple[int, int] | None = None
    names: Sequence[str] | None = None
    order: Order | None = None
    scale: float | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    placement: Placement | None = None
    pad_value: int | None = None
    score_threshold: float | None = None
    iou_threshold: float | None = None
    candidates: int | None = None
    rows: int | None = None
    keep_batch: bool = False


def adapt_file(path: Path, out: Path, overrides: Overrides | None = None) -> Adapted:
    """Adapt a file into another, which is whole or not there; return the record of what was recognised.

    Raises:
        BuildError: the file is no ONNX model, or no detector that can be adapted.
    """
    adapted = adapt(path, overrides)
    with atomic_write(out) as aside:
        onnx.save(adapted, aside)
    record = read_adapted(adapted)
    assert record is not None
    return record


def adapt(path: Path, overrides: Overrides | None = None) -> onnx.ModelProto:
    """Return the adapted model of a source file, with its `Adapted` record in the metadata.

    Raises:
        BuildError: the file is no ONNX model, or no detector that can be adapted.
    """
    overrides = overrides or Overrides()
    model = read_onnx(path)
    image = image_input(model)
    fix_size(model, image, overrides.size)
    source = describe_source(model, image)
    head = _head(source, overrides.head)
    tail = head.tail(source, _or(overrides.candidates, head.candidates))
    record = Adapted(
        head=head.name,
        source=path.name,
        source_sha256=sha256(path),
        candidates=tail.candidates,
        normalization=_normalization(head, overrides),
        spec=_spec(model, head, source, overrides),
        source_batch=image.type.tensor_type.shape.dim[0].dim_value or None,
        batch_kept=_keeps_batch(image, overrides),
    )
    if record.source_batch and not record.batch_kept:
        model = open_batch(model, image.name)
    batch = str(record.source_batch) if record.batch_kept else BATCH
    before = graph.front(image, source, record.normalization, batch)
    after = graph.back(model, tail, source, batch)
    adapted = tidied(graph.join(model, before, image.name, after))
    add_record(adapted, record)
    onnx.checker.check_model(adapted, full_check=True)
    return adapted


def describe(record: Adapted) -> list[str]:
    """Return what was recognised and done, in lines for the user."""
    spec, pixels = record.spec, record.normalization
    lines = [
        f"adapt: head {record.head}, {len(spec.class_names)} classes, {spec.width}x{spec.height}, {pixels.order}",
        f"       {spec.placement} letterbox on {spec.pad_value}, scale {pixels.scale:.4g}",
        f"       the best {record.candidates} candidates, an answer of {spec.rows} rows",
    ]
    if record.batch_kept:
        lines.append("       batch: stays fixed at 1; a batch is served image by image")
    elif record.source_batch:
        was, checked = record.source_batch, record.source_batch + 1
        lines.append(f"       batch: was fixed at {was}, is dynamic now (checked on a batch of {checked})")
    return lines


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


def _head(source: Source, name: str | None) -> Head:
    if name is None:
        return heads.recognise(source)
    head = heads.head_named(name)
    if not head.matches(source):
        outputs = "; ".join(str(output) for output in source.outputs)
        raise BuildError(f"the head {head.name!r} needs {head.description}, but the model's outputs are {outputs}")
    return head


def _keeps_batch(image: onnx.ValueInfoProto, overrides: Overrides) -> bool:
    """Return whether the batch stays as the source has fixed it; an open one is open anyway."""
    batch = image.type.tensor_type.shape.dim[0].dim_value
    if overrides.keep_batch and batch > 1:
        raise BuildError(
            f"--keep-batch serves image by image, but the model takes {batch} at a time; "
            "leave it out, or export the model with a batch of 1"
        )
    return overrides.keep_batch and batch == 1


def _normalization(head: Head, overrides: Overrides) -> Normalization:
    asked = {name: getattr(overrides, name) for name in ("order", "scale", "mean", "std")}
    chosen = replace(head.normalization, **{name: value for name, value in asked.items() if value is not None})
    if chosen.order not in ("rgb", "bgr"):
        raise BuildError(f"the channel order must be rgb or bgr, but got {chosen.order!r}")
    if 0 in chosen.std:
        raise BuildError(f"no standard deviation may be 0, but got {chosen.std}")
    return chosen


def _spec(model: onnx.ModelProto, head: Head, source: Source, overrides: Overrides) -> DetectorSpec:
    return DetectorSpec(
        width=source.width,
        height=source.height,
        class_names=class_names(model, head.class_count(source), overrides.names),
        placement=_or(overrides.placement, head.placement),
        pad_value=_or(overrides.pad_value, head.pad_value),
        score_threshold=_or(overrides.score_threshold, DetectorSpec.score_threshold),
        iou_threshold=_or(overrides.iou_threshold, head.iou_threshold),
        rows=_or(overrides.rows, DetectorSpec.rows),
    )


def _or(asked: T | None, habit: T) -> T:
    return habit if asked is None else asked
