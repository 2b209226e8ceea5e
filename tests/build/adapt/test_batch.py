"""A batch that the source has fixed: opened and proven, or refused in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
from numpy.typing import NDArray

from support.detectors import SIDE, add_constants, conv_model, yolox_model
from triptych.errors import BuildError
from triptych.runtimes import open_runtime
from triptych_build.adapt.adapter import Overrides, adapt_file
from triptych_build.adapt.batch import open_batch

Constants = dict[str, NDArray[Any]]

ROWS = 64
"""Cells of the small models: an 8x8 grid."""


def ints(*values: int) -> NDArray[np.int64]:
    return np.array(values, np.int64)


def source(path: Path, body: str, constants: Constants, channels: int = 9, fixed: int = 1) -> Path:
    """A detector of a fixed batch with `body` from `cells` [B, channels, 8, 8] to `output0`."""
    conv_model(path, body, f"{fixed}, {channels}, {ROWS}", channels, batch=str(fixed))
    return add_constants(path, **constants)


def run(model: onnx.ModelProto, images: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    results: NDArray[np.float32] = session.run(None, {"images": images})[0]
    return results


def check(path: Path, images: int = 3) -> onnx.ModelProto:
    """Open the batch, and compare with the original image by image (a fixed batch is filled with one image)."""
    original = onnx.load(path)
    fixed = original.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    opened = open_batch(original, "images")
    pixels = np.random.default_rng(5).random((images, 3, SIDE, SIDE), np.float32)
    together = run(opened, pixels)
    apart = np.stack([run(original, np.repeat(image[None], fixed, 0))[0] for image in pixels])
    assert images == 1 or np.abs(apart[0] - apart[1]).max() > 0.1, "alike images would show nothing"
    assert np.abs(together - apart).max() < 1e-5 * np.abs(apart).max()
    onnx.checker.check_model(opened, full_check=True)
    shapes = [value.type.tensor_type.shape.dim[0] for value in (opened.graph.input[0], opened.graph.output[0])]
    assert [dim.dim_param for dim in shapes] == ["N", "N"]
    return opened


FLAT = "output0 = Reshape (cells, flat_shape)"

HEADS_OF_ATTENTION = """
    rows = Reshape (cells, rows_shape)
    sequence = Transpose <perm = [2, 0, 1]> (rows)
    split = Reshape (sequence, split_shape)
    heads = Transpose <perm = [1, 0, 2]> (split)
    keys = Transpose <perm = [1, 2, 0]> (split)
    scores = MatMul (heads, keys)
    weights = Softmax <axis = -1> (scores)
    attended = MatMul (weights, heads)
    joined = Transpose <perm = [1, 0, 2]> (attended)
    table = Reshape (joined, table_shape)
    linear = MatMul (table, linear_weight)
    back = Reshape (linear, sequence_shape)
    output0 = Transpose <perm = [1, 2, 0]> (back)"""
"""Attention as torch exports it with the sequence first: heads next to the batch, then a table of rows."""

WEIGHT = np.random.default_rng(1).normal(0, 1, (12, 12)).astype(np.float32)
QUERIES = np.random.default_rng(2).normal(0, 1, (1, 9, 10)).astype(np.float32)

PARTS: Constants = {"flat_shape": ints(1, 9, 64), "zero": ints(0), "end": ints(54), "two": ints(2)}

OPENED: dict[str, tuple[str, Constants]] = {
    "reshape with the 1 in front": (FLAT, {"flat_shape": ints(1, 9, -1)}),
    "reshape to fixed sizes": (FLAT, {"flat_shape": ints(1, 9, 64)}),
    "reshape whose -1 is elsewhere": (FLAT, {"flat_shape": ints(1, -1, 64)}),
    "reshape by a constant operator": (
        "shape = Constant <value = int64[3] {1, 9, -1}> ()\noutput0 = Reshape (cells, shape)",
        {},
    ),
    "a shape computed from constants": (
        "shape = Concat <axis = 0> (one, rest)\noutput0 = Reshape (cells, shape)",
        {"one": ints(1), "rest": ints(9, -1)},
    ),
    "anchors that split off the channels": (
        """grid = Reshape (cells, grid_shape)
           turned = Transpose <perm = [0, 2, 1, 3, 4]> (grid)
           output0 = Reshape (turned, flat_shape)""",
        {"grid_shape": ints(1, 3, 3, 8, 8), "flat_shape": ints(1, 9, 64)},
    ),
    "windows next to the batch": (
        """halves = Reshape (cells, halves_shape)
           windows = Reshape (halves, windows_shape)
           soft = Softmax <axis = -1> (windows)
           output0 = Reshape (soft, flat_shape)""",
        {"halves_shape": ints(1, 9, 2, 32), "windows_shape": ints(18, 32), "flat_shape": ints(1, 9, 64)},
    ),
    "resize to sizes": (
        'small = Resize <mode = "nearest"> (cells, , , sizes)\noutput0 = Reshape (small, flat_shape)',
        {"sizes": ints(1, 9, 4, 16), "flat_shape": ints(1, 9, 64)},
    ),
    "slice of the one image": (
        "first = Slice (cells, zero, one, zero)\noutput0 = Reshape (first, flat_shape)",
        {"zero": ints(0), "one": ints(1), "flat_shape": ints(1, 9, 64)},
    ),
    "expand over the one image": (
        "wide = Reshape (cells, flat_shape)\noutput0 = Expand (wide, full)",
        {"flat_shape": ints(1, 9, 64), "full": ints(1, 9, 64)},
    ),
    "queries that all images share": (
        """some = Reshape (cells, flat_shape)
           most = Slice (some, zero, end, two)
           output0 = Concat <axis = 2> (queries, most)""",
        PARTS | {"queries": QUERIES},
    ),
    "queries tiled for the one image": (
        """tiled = Tile (queries, once)
           some = Reshape (cells, flat_shape)
           most = Slice (some, zero, end, two)
           output0 = Concat <axis = 2> (tiled, most)""",
        PARTS | {"queries": QUERIES, "once": ints(1, 1, 1)},
    ),
    "anchors gathered by each image's best": (
        """some = Reshape (cells, flat_shape)
           score, best = TopK <axis = 2> (some, k)
           kept = GatherElements <axis = 2> (anchors, best)
           rest = Slice (some, zero, end, two)
           output0 = Concat <axis = 2> (kept, rest)""",
        PARTS | {"k": ints(10), "anchors": np.random.default_rng(4).random((1, 9, 64)).astype(np.float32)},
    ),
    "rows taken by a constant image number": (
        """flat = Reshape (cells, flat_shape)
           rows = Transpose <perm = [0, 2, 1]> (flat)
           best = ReduceMax <axes = [2], keepdims = 0> (rows)
           score, top = TopK <axis = 1> (best, k)
           list = Reshape (top, column)
           where = Concat <axis = 1> (image_number, list)
           kept = GatherND (rows, where)
           table = Reshape (kept, table_shape)
           output0 = Transpose <perm = [0, 2, 1]> (table)""",
        {
            "flat_shape": ints(1, 9, 64),
            "k": ints(64),
            "column": ints(-1, 1),
            "table_shape": ints(1, 64, 9),
            "image_number": np.zeros((64, 1), np.int64),
        },
    ),
    "rows taken from a table of all images' rows": (
        """flat = Reshape (cells, flat_shape)
           rows = Transpose <perm = [0, 2, 1]> (flat)
           best = ReduceMax <axes = [2], keepdims = 0> (rows)
           score, top = TopK <axis = 1> (best, k)
           list = Reshape (top, all)
           first_row = Mul (image_number, rows_each)
           where = Add (list, first_row)
           all_rows = Reshape (rows, all_rows_shape)
           kept = Gather <axis = 0> (all_rows, where)
           table = Reshape (kept, table_shape)
           output0 = Transpose <perm = [0, 2, 1]> (table)""",
        {
            "flat_shape": ints(1, 9, 64),
            "k": ints(64),
            "all": ints(-1),
            "all_rows_shape": ints(64, 9),
            "table_shape": ints(1, 64, 9),
            "rows_each": np.array(64, np.int64),
            "image_number": np.zeros(64, np.int64),
        },
    ),
}


@pytest.mark.parametrize("name", OPENED)
def test_what_holds_the_batch_is_opened(tmp_path: Path, name: str) -> None:
    body, constants = OPENED[name]
    check(source(tmp_path / "source.onnx", body, constants))


def test_attention_with_the_sequence_first_is_opened(tmp_path: Path) -> None:
    constants: Constants = {
        "rows_shape": ints(1, 12, 64),
        "split_shape": ints(64, 4, 3),
        "table_shape": ints(64, 12),
        "sequence_shape": ints(64, 1, 12),
        "linear_weight": WEIGHT,
    }
    check(source(tmp_path / "source.onnx", HEADS_OF_ATTENTION, constants, channels=12))


@pytest.mark.parametrize("fixed", [2, 4])
def test_a_larger_fixed_batch_is_opened(tmp_path: Path, fixed: int) -> None:
    path = source(tmp_path / "source.onnx", FLAT, {"flat_shape": ints(fixed, 9, 64)}, fixed=fixed)
    check(path, images=1)
    check(path, images=fixed + 1)


def test_a_reshape_that_needs_its_one_open_size_gets_a_copy_in_front(tmp_path: Path) -> None:
    opened = check(source(tmp_path / "source.onnx", FLAT, {"flat_shape": ints(1, 9, -1)}))
    target = next(node for node in opened.graph.node if node.op_type == "Reshape").input[1]
    values = [onnx.numpy_helper.to_array(tensor) for tensor in opened.graph.initializer if tensor.name == target]
    assert values[0].tolist() == [0, 9, -1]


def test_the_original_is_left_as_it_is(tmp_path: Path) -> None:
    original = onnx.load(source(tmp_path / "source.onnx", FLAT, {"flat_shape": ints(1, 9, 64)}))
    before = original.SerializeToString(deterministic=True)
    open_batch(original, "images")
    assert original.SerializeToString(deterministic=True) == before


REFUSED: dict[str, tuple[str, Constants, str]] = {
    "one image taken out": (
        """first = Gather <axis = 0> (cells, index)
           flat = Reshape (first, flat_shape)
           output0 = Unsqueeze (flat, axis)""",
        {"index": np.array(0), "flat_shape": ints(9, 64), "axis": ints(0)},
        r"after the operator Gather 'first' the images of a batch cannot be told apart",
    ),
    "the batch squeezed away": (
        """first = Squeeze (cells, axis)
           flat = Reshape (first, flat_shape)
           output0 = Unsqueeze (flat, axis)""",
        {"flat_shape": ints(9, 64), "axis": ints(0)},
        r"the operator Squeeze 'first' works for that batch only",
    ),
    "images that look at each other": (
        """flat = Reshape (cells, flat_shape)
           mean = ReduceMean <axes = [0], keepdims = 1> (flat)
           output0 = Add (flat, mean)""",
        {"flat_shape": ints(1, 9, 64)},
        r"after the operator ReduceMean 'mean' the images of a batch cannot be told apart",
    ),
    "a normalization over the batch": (
        """flat = Reshape (cells, flat_shape)
           output0 = Softmax <axis = 0> (flat)""",
        {"flat_shape": ints(1, 9, 64)},
        r"on a batch of 2 the opened model gives other results",
    ),
    "images numbered by a constant": (
        """flat = Reshape (cells, flat_shape)
           rows = Transpose <perm = [0, 2, 1]> (flat)
           turned = Transpose <perm = [2, 0, 1]> (flat)
           best = ReduceMax <axes = [2], keepdims = 0> (rows)
           score, top = TopK <axis = 1> (best, k)
           list = Reshape (top, column)
           where = Concat <axis = 1> (list, image_number)
           kept = GatherND (turned, where)
           table = Reshape (kept, table_shape)
           output0 = Transpose <perm = [0, 2, 1]> (table)""",
        {
            "flat_shape": ints(1, 9, 64),
            "k": ints(64),
            "column": ints(-1, 1),
            "table_shape": ints(1, 64, 9),
            "image_number": np.zeros((64, 1), np.int64),
        },
        r"the operator Concat 'where' takes indices that were made for it",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_opened_is_refused_by_name_with_the_way_out(tmp_path: Path, name: str) -> None:
    body, constants, message = REFUSED[name]
    with pytest.raises(BuildError, match=message) as caught:
        open_batch(onnx.load(source(tmp_path / "source.onnx", body, constants)), "images")
    assert str(caught.value).startswith("the model's batch is fixed at 1 and cannot be opened: ")
    assert str(caught.value).endswith("(Ultralytics: dynamic=True), or with a batch of 1")
    assert "\n" not in str(caught.value)


def test_a_constant_for_each_image_of_a_larger_batch_is_refused(tmp_path: Path) -> None:
    body = "flat = Reshape (cells, flat_shape)\noutput0 = Add (flat, offsets)"
    offsets = np.zeros((4, 9, 64), np.float32)
    path = source(tmp_path / "source.onnx", body, {"flat_shape": ints(4, 9, 64), "offsets": offsets}, fixed=4)
    with pytest.raises(BuildError, match="the operator Add 'output0' takes a constant made for 4 images"):
        open_batch(onnx.load(path), "images")


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_an_opened_detector_gives_each_image_the_same_candidates(
    tmp_path: Path, runtime: str, pixels: NDArray[np.uint8]
) -> None:
    path = yolox_model(tmp_path / "source.onnx")
    adapt_file(path, tmp_path / "opened.onnx")
    adapt_file(path, tmp_path / "kept.onnx", Overrides(keep_batch=True))
    opened, kept = (
        open_runtime(runtime, tmp_path / name, threads=1).detect(pixels) for name in ("opened.onnx", "kept.onnx")
    )
    assert np.abs(opened - kept).max() < 1e-4
    batches = [
        [dim.dim_value or dim.dim_param for dim in value.type.tensor_type.shape.dim]
        for name in ("opened.onnx", "kept.onnx")
        for value in (*onnx.load(tmp_path / name).graph.input, *onnx.load(tmp_path / name).graph.output)
    ]
    assert batches == [["N", 64, 64, 3], ["N", 84, 6], [1, 64, 64, 3], [1, 84, 6]]


def test_real_yolox_nano_becomes_dynamic(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "yolox_nano" / "yolox_nano.onnx"
    adapt_file(path, tmp_path / "opened.onnx")
    adapt_file(path, tmp_path / "kept.onnx", Overrides(keep_batch=True))
    pixels = np.random.default_rng(1).integers(0, 256, (2, 416, 416, 3), dtype=np.uint8)
    opened, kept = (
        open_runtime("onnxruntime", tmp_path / name, threads=2).detect(pixels) for name in ("opened.onnx", "kept.onnx")
    )
    assert np.abs(opened - kept).max() < 1e-2, "in pixels of the letterbox"
    graph = onnx.load(tmp_path / "opened.onnx").graph
    assert graph.output[0].type.tensor_type.shape.dim[0].dim_param == "N"
