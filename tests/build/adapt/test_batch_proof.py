"""The proof on images: what it accepts, and what it says of a model that is wrong."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser
import pytest

from triptych_build.adapt.batch_proof import find_difference


def model(batch: str, body: str, output: str = "") -> onnx.ModelProto:
    parsed = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        detector (float[{batch}, 3, 4, 4] images) => (float[{output or f"{batch}, 3, 4, 4"}] result) {{ {body} }}"""
    )
    for name, value in (("factor", np.float32(2)), ("zero", np.array(0)), ("first", np.array([0]))):
        parsed.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    return parsed


DOUBLE = "result = Mul (images, factor)"


@pytest.mark.parametrize(
    ("opened", "suspect", "expected"),
    [
        (DOUBLE, "", ""),
        (DOUBLE, "the operator Mul", ""),
        ("result = Add (images, factor)", "", "on a batch of 2 the opened model gives other results"),
        ("result = Add (images, factor)", "the operator Add", "the operator Add"),
        ("one = Gather <axis = 0> (images, first)\nresult = Mul (one, factor)", "", "on a batch of 2 the opened model"),
        ("result = Gather <axis = 0> (images, images)", "", "the opened model does not run ("),
    ],
)
def test_the_opened_model_against_the_original(opened: str, suspect: str, expected: str) -> None:
    reason = find_difference(model("1", DOUBLE), model("N", opened), "images", suspect)
    assert reason.startswith(expected) if expected else reason == ""


def test_a_model_that_shows_nothing_proves_nothing() -> None:
    body = "nothing = Sub (images, images)\nresult = Mul (nothing, factor)"
    reason = find_difference(model("1", body), model("N", body), "images", "")
    assert reason == "different images gave the same results, so that nothing could be checked"
