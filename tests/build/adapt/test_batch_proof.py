"""The proof on images: what it accepts, and what it says of a model that is wrong."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser
import pytest

from triptych_build.adapt.batch_proof import CANNOT_TELL, find_difference


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
    assert reason == CANNOT_TELL


def test_weights_that_tell_images_apart_by_little_are_proof_enough() -> None:
    """An output that is nearly the same for all images, as a network has it that was never trained."""
    faint = "faint = Mul (images, tiny)\nresult = Add (faint, factor)"
    swapped = "mixed = Gather <axis = 0> (images, order)\n" + faint.replace("images", "mixed")
    original, opened, mixed = model("1", faint), model("N", faint), model("N", swapped)
    for one in (original, opened, mixed):
        one.graph.initializer.append(onnx.numpy_helper.from_array(np.array(1e-4, np.float32), "tiny"))
        one.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 0]), "order"))
    assert find_difference(original, opened, "images", "") == ""
    assert find_difference(original, mixed, "images", "") == "on a batch of 2 the opened model gives other results"
