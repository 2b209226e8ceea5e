"""The outputs of a source that carry its boxes: others are left out, and each gets the batch as its first axis."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper

from triptych.errors import BuildError
from triptych_build.adapt.heads import Output, Source

COUNTS = ("num_dets", "num_detections", "num_predictions", "num_boxes")
"""Outputs that tell how many rows of the others are filled; the rows behind them score 0."""

LIST_COLUMNS = (6, 7)
"""Columns of a table of rows without a batch: a box, its score and its label, and the number of the image."""


def settle_outputs(model: onnx.ModelProto, source: Source, batch: int | None) -> Source:
    """Leave the outputs with boxes, scores and labels in a model, in place, and return the source with these.

    Args:
        model: the source's graph.
        source: with all its outputs.
        batch: the batch that the model has fixed; None if it is open.

    Raises:
        BuildError: the rows of all images of a batch are in one list.
    """
    kept = _relevant(source.outputs)
    if any(_is_list(output, batch or 1) for output in kept):
        if batch != 1:
            raise BuildError(
                f"the model's outputs are {source}: the boxes of all images in one list; export it with a batch of 1"
            )
        kept = [_with_batch(model, output) for output in kept]
    by_name = {value.name: value for value in model.graph.output}
    values = [by_name[output.name] for output in kept]
    del model.graph.output[:]
    model.graph.output.extend(values)
    return replace(source, outputs=tuple(kept))


def _relevant(outputs: tuple[Output, ...]) -> list[Output]:
    names = {output.name for output in outputs}
    if {"logits", "pred_boxes"} <= names:  # Transformers gives hidden states as well
        return [output for output in outputs if output.name in ("logits", "pred_boxes")]
    kept = [output for output in outputs if not output.name.lower().endswith(COUNTS)]
    rows = [output for output in kept if len(output.shape) > 1 and output.shape[-1] in LIST_COLUMNS]
    if len(rows) == 1:  # a row has all of a box: whole numbers beside it count the rows, whatever they are called
        kept = [output for output in kept if output in rows or not output.is_integer]
    tables = [output for output in kept if len(output.shape) == 3]
    # YOLOv5 gives its feature maps [N, 3, H, W, columns] as well.
    return [output for output in kept if len(output.shape) < 5] if len(tables) == 1 else kept


def _is_list(output: Output, batch: int) -> bool:
    """Return whether an output has a row for each box, and no axis for the batch."""
    sizes = {values.shape[0] for values in output.values}
    columns = output.shape[1] if len(output.shape) == 2 else None
    return sizes != {batch} and (len(output.shape) == 1 or columns in (4, *LIST_COLUMNS))


def _with_batch(model: onnx.ModelProto, output: Output) -> Output:
    """Put an axis of 1 in front of an output."""
    name = f"{output.name}_of_one"
    axes = "axes_of_batch"
    if axes not in {tensor.name for tensor in model.graph.initializer}:
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0]), axes))
    model.graph.node.append(onnx.helper.make_node("Unsqueeze", [output.name, axes], [name], name))
    value = next(value for value in model.graph.output if value.name == output.name)
    kind = onnx.helper.make_tensor_type_proto(value.type.tensor_type.elem_type, [1, *output.shape])
    value.CopyFrom(onnx.helper.make_value_info(name, kind))
    seen = tuple(values[None] for values in output.values)
    # A list without a box is none: the count varies.
    shape = (1, None, *output.shape[1:])
    return Output(name, shape, output.producer, seen)
