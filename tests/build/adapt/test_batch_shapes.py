"""Shapes and small values in a graph, at a batch of a given size."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser
import pytest

from triptych_build.adapt.batch_shapes import BatchShapes, reshaped_batch_axis


@pytest.mark.parametrize(
    ("before", "axis", "after", "batch", "expected"),
    [
        ((1, 85, 52, 52), 0, (1, 85, 2704), 1, 0),
        ((300, 1, 256), 1, (300, 8, 32), 1, 1),
        ((300, 1, 256), 1, (300, 256), 1, 0),
        ((1, 9, 2, 32), 0, (18, 32), 1, 0),
        ((4, 9, 64), 0, (4, 576), 4, 0),
        ((1, 64), 0, (1, 1, 64), 1, 0),
        ((64, 4, 12), 1, (64, 16, 3), 4, 1),
    ],
)
def test_where_a_reshape_puts_the_batch(
    before: tuple[int, ...], axis: int, after: tuple[int, ...], batch: int, expected: int
) -> None:
    assert reshaped_batch_axis(before, axis, after, batch) == expected


def followed(batch: int) -> BatchShapes:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        detector (float[1, 3, 8, 8] images) => (float[1, 192] flat) {
            sizes = Shape (images)
            first = Gather <axis = 0> (sizes, zero)
            target = Concat <axis = 0> (first, rest)
            flat = Reshape (images, target)
            custom = com.example.Unknown (flat)
        }"""
    )
    for name, value in (("zero", np.array([0])), ("rest", np.array([-1]))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    shapes = BatchShapes(model, model.graph.input[0], batch)
    for node in model.graph.node:
        shapes.infer(node)
    return shapes


@pytest.mark.parametrize("batch", [1, 4])
def test_values_are_computed_from_shapes(batch: int) -> None:
    shapes = followed(batch)
    assert shapes.values["target"].tolist() == [batch, -1]
    assert shapes.shape("flat") == shapes.whole_shape("flat") == (batch, 192)
    assert shapes.dtype("flat") == np.float32


def test_what_cannot_be_known_is_none() -> None:
    shapes = followed(1)
    assert shapes.shape("custom") is None
    assert shapes.whole_shape("custom") is None
    assert "flat" not in shapes.values, "only what exporters compute shapes with is evaluated"
