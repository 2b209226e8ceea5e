"""Rewrite a detector's ONNX into the contract: uint8 pixels [N, H, W, 3] in, candidates [N, K, 6] out.

Normalisation and channel order go to the front of the graph, scoring, top-k and box decoding to its end, so that
preprocess and postprocess never know which detector runs. Only plain ONNX operators are added: the same file runs
on TensorRT, ONNX Runtime and OpenVINO.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import onnx
import onnx.checker

from triptych.contract import Decoding, DetectorSpec, Placement
from triptych.errors import BuildError
from triptych.files import atomic_write
from triptych_build.adapt import graph, heads
from triptych_build.adapt.batch import BATCH, WAY_OUT, BatchTied, fix_untrue_batch, open_batch
from triptych_build.adapt.exporters import prepared_as, with_preparation
from triptych_build.adapt.heads import Activation, Boxes, Head, NoObject, Normalization, Order, Reading, Source, Unit
from triptych_build.adapt.heads.head import AS_BYTES, Habits
from triptych_build.adapt.names import class_names, missing, names_in_metadata
from triptych_build.adapt.onnx_file import Adapted, add_record, read_adapted, read_onnx, source_sha256, tidied
from triptych_build.adapt.outputs import settle_outputs
from triptych_build.adapt.sanity import check_adapted
from triptych_build.adapt.source import describe_source, metadata, take_image
from triptych_build.adapt.tasks import other_task

T = TypeVar("T")

TABLES = ("raw", "split", "query")
"""Heads of queries or anchors before suppression."""


@dataclass(frozen=True)
class Overrides:
    """What the user knows better than the family's habits; None leaves the habit in place.

    `keep_batch` leaves a batch that the source has fixed at 1 as it is, to be served image by image.
    """

    head: str | None = None
    boxes: Boxes | None = None
    unit: Unit | None = None
    activation: Activation | None = None
    no_object: NoObject | None = None
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
    decode: Decoding | None = None
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
    image, is_sized = take_image(model, overrides.size)
    untrue = fix_untrue_batch(model, image)
    fixed = image.type.tensor_type.shape.dim[0].dim_value or None
    exporter = prepared_as(model)
    told = _told(exporter[1].normalization if exporter else None, overrides)
    source = settle_outputs(model, describe_source(model, image, is_sized=is_sized, told=told), fixed)
    if task := other_task(source, metadata(model, "task")):
        raise BuildError(f"this is {task}; Triptych serves boxes: give it a detection model")
    names = names_in_metadata(model)
    source = replace(source, classes=_class_counts(names, overrides))
    head = heads.head_named(overrides.head, source) if overrides.head else heads.recognise(source)
    reading = _reading(head, source, overrides, exporter[1].boxes if exporter else None)
    habits = head.habits(source, reading)
    if exporter:
        habits = with_preparation(habits, exporter[1])
    tail = head.tail(source, reading, _or(overrides.candidates, habits.candidates))
    spec = _spec(names, head, source, reading, habits, overrides)
    record = Adapted(
        head=head.name,
        source=path.name,
        source_sha256=source_sha256(path),
        candidates=tail.candidates,
        normalization=_normalization(habits, source, overrides),
        spec=spec,
        source_batch=fixed,
        batch_kept=_keeps_batch(fixed, overrides),
        reading=reading,
        unnamed=tuple(missing(names, spec.class_names)) if overrides.names is None else (),
        exporter=exporter[0] if exporter else "",
    )
    if record.source_batch and not record.batch_kept:
        model, record = _open(model, image, record, untrue)
    batch = str(record.source_batch) if record.batch_kept else BATCH
    before = graph.front(image, source, record.normalization, batch)
    after = graph.back(model, tail, source, batch)
    adapted = tidied(graph.join(model, before, image.name, after))
    add_record(adapted, record)
    _check_graph(adapted)
    check_adapted(adapted, record)
    return adapted


def _check_graph(adapted: onnx.ModelProto) -> None:
    try:
        onnx.checker.check_model(adapted, full_check=True)
    except Exception as error:  # the checker's and the shape inference's errors share no class
        words = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BuildError(
            f"ONNX's own checker refuses the adapted graph: {words}; if the head is another one, choose it with "
            "--head; if onnx.checker.check_model(path, full_check=True) refuses the model itself, export it with "
            "another opset"
        ) from error


def _class_counts(names: dict[int, str], overrides: Overrides) -> frozenset[int]:
    """Return how many classes there may be by the user's names, or else the source's, whose ids may have gaps."""
    if overrides.names is not None:
        return frozenset([len(overrides.names)])
    return frozenset([len(names), max(names) + 1]) if names else frozenset()


def _reading(head: Head, source: Source, overrides: Overrides, known: tuple[Boxes, Unit] | None) -> Reading:
    """Return how the head's numbers are read: as the user or the exporter says, the rest as they show themselves.

    Args:
        head: the head.
        source: with what its outputs are on a few images.
        overrides: what the user says.
        known: how the exporter gives the boxes of queries and anchors.
    """
    asked: dict[str, Any] = {}
    if known and head.name in TABLES:
        asked = {"boxes": known[0], "unit": known[1]}
    names = ("boxes", "unit", "activation", "no_object")
    asked |= {name: getattr(overrides, name) for name in names if getattr(overrides, name) is not None}
    try:
        reading = head.read(source)
    except BuildError:
        if not {"boxes", "unit"} <= set(asked):
            raise
        reading = head.read(replace(source, outputs=tuple(replace(output, values=()) for output in source.outputs)))
    return replace(reading, **asked)


def _open(
    model: onnx.ModelProto, image: onnx.ValueInfoProto, record: Adapted, untrue: str
) -> tuple[onnx.ModelProto, Adapted]:
    """Return the model with its batch open, or as it is where that is no harm: a batch of 1 is served one by one.

    Args:
        model: the source.
        image: its input.
        record: what was recognised.
        untrue: why the batch that was open is none; empty if none was.

    Raises:
        BatchTied: it takes several images at a time, and this cannot be opened.
    """
    try:
        return open_batch(model, image.name), record
    except BatchTied as error:
        if record.source_batch != 1:
            raise
        return model, replace(record, batch_kept=True, why_kept=untrue or error.reason)


def describe(record: Adapted) -> list[str]:
    """Return what was recognised and done, in lines for the user."""
    spec, pixels = record.spec, record.normalization
    lines = [
        f"adapt: head {record.head}, {len(spec.class_names)} classes, {spec.width}x{spec.height}, {pixels.order}",
        f"       {spec.placement} letterbox on {spec.pad_value}, {pixels}",
        f"       the best {record.candidates} candidates, an answer of {spec.rows} rows",
    ]
    if record.reading:
        lines.insert(1, f"       {record.reading}")
    if record.exporter:
        lines.append(f"       {record.exporter}")
    if spec.decode == "scaled":
        lines.append("       JPEGs of twice the size in the letterbox or more are decoded to fewer pixels")
    if record.unnamed:
        lines.append(f"       names: the metadata has none for class {', '.join(map(str, record.unnamed))}")
    if record.batch_kept:
        lines.append("       batch: stays fixed at 1; a batch is served image by image")
        if record.why_kept:
            lines.append(f"       it was not opened, since {record.why_kept}; {WAY_OUT}")
    elif record.source_batch:
        was, checked = record.source_batch, record.source_batch + 1
        lines.append(f"       batch: was fixed at {was}, is dynamic now (checked on a batch of {checked})")
    return lines


def _keeps_batch(batch: int | None, overrides: Overrides) -> bool:
    """Return whether the batch stays as the source has fixed it; an open one is open anyway."""
    if overrides.keep_batch and batch and batch > 1:
        raise BuildError(
            f"--keep-batch serves image by image, but the model takes {batch} at a time; "
            "leave it out, or export the model with a batch of 1"
        )
    return overrides.keep_batch and batch == 1


def _told(exporter: Normalization | None, overrides: Overrides) -> Normalization | None:
    """Return how the exporter, and before it the user, says that pixels are prepared; None if nobody says it."""
    user_says = any(value is not None for value in (overrides.scale, overrides.mean, overrides.std))
    return _chosen(exporter or Normalization(), overrides) if exporter or user_says else None


def _normalization(habits: Habits, source: Source, overrides: Overrides) -> Normalization:
    return _chosen(AS_BYTES if source.is_bytes else habits.normalization, overrides)


def _chosen(habit: Normalization, overrides: Overrides) -> Normalization:
    asked = {name: getattr(overrides, name) for name in ("order", "scale", "mean", "std")}
    chosen = replace(habit, **{name: value for name, value in asked.items() if value is not None})
    if chosen.order not in ("rgb", "bgr"):
        raise BuildError(f"the channel order must be rgb or bgr, but got {chosen.order!r}")
    if 0 in chosen.std:
        raise BuildError(f"no standard deviation may be 0, but got {chosen.std}")
    return chosen


def _spec(
    names: dict[int, str], head: Head, source: Source, reading: Reading, habits: Habits, overrides: Overrides
) -> DetectorSpec:
    return DetectorSpec(
        width=source.width,
        height=source.height,
        class_names=class_names(names, head.class_count(source, reading), overrides.names),
        placement=_or(overrides.placement, habits.placement),
        pad_value=_or(overrides.pad_value, habits.pad_value),
        score_threshold=_or(overrides.score_threshold, DetectorSpec.score_threshold),
        iou_threshold=_or(overrides.iou_threshold, habits.iou_threshold),
        rows=_or(overrides.rows, DetectorSpec.rows),
        decode=_or(overrides.decode, DetectorSpec.decode),
    )


def _or(asked: T | None, habit: T) -> T:
    return habit if asked is None else asked
