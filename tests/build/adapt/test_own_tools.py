"""What the families' own exporters write, small: lists that are empty on untrained weights, and COCO's class ids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from support.detectors import add_constants, conv_model
from support.graphs import record_of
from triptych.errors import BuildError
from triptych.runtimes import open_runtime
from triptych_build.adapt.adapter import Overrides, adapt, adapt_file, describe
from triptych_build.adapt.coco import COCO, coco_by_id
from triptych_build.adapt.heads import Output, Source
from triptych_build.adapt.heads import rows as rows_of
from triptych_build.adapt.heads.query import SPLIT
from triptych_build.adapt.heads.rows import SEPARATE

NAMES = [f"thing {number}" for number in range(5)]

SUPPRESSED = """flat = Reshape (cells, flat_shape)
    columns = Transpose <perm = [0, 2, 1]> (flat)
    box_numbers, logit, class_logit = Split <axis = 2> (columns, parts)
    spread = Mul (box_numbers, sixteen)
    positive = Abs (spread)
    first, size = Split <axis = 2> (positive, pair)
    last = Add (first, size)
    corners = Concat <axis = 2> (first, last)
    score_column = Sigmoid (logit)
    score_row = Transpose <perm = [0, 2, 1]> (score_column)
    found = NonMaxSuppression (corners, score_row, most, overlap, enough)
    place_column = Slice (found, two, three, one)
    place = Squeeze (place_column, one)
    class_column = Sigmoid (class_logit)
    class_ids = Cast <to = 7> (class_column)
    all_corners = Squeeze (corners, zero)
    all_scores = Reshape (score_column, minus)
    all_labels = Reshape (class_ids, minus)
    boxes = Gather (all_corners, place)
    scores = Gather (all_scores, place)
    labels = Gather (all_labels, place)"""


def suppressed(path: Path, body: str, outputs: str, *, score: float) -> Path:
    """Boxes of one image that a suppression inside the graph left, as lists of a length that only running tells."""
    conv_model(path, SUPPRESSED + body, "", 6, batch="1", outputs=outputs)
    return add_constants(
        path,
        flat_shape=np.array([0, 6, -1]),
        parts=np.array([4, 1, 1]),
        sixteen=np.array(16, np.float32),
        pair=np.array([2, 2]),
        most=np.array([30]),
        overlap=np.array([0.5], np.float32),
        enough=np.array([score], np.float32),
        zero=np.array([0]),
        one=np.array([1]),
        two=np.array([2]),
        three=np.array([3]),
        minus=np.array([-1]),
    )


@pytest.mark.parametrize("score", [0.5, 2.0], ids=["some", "none on any image"])
@pytest.mark.parametrize("order", [("scores", "labels"), ("labels", "scores")])
def test_labels_without_a_name_are_the_whole_numbers_by_their_type(
    tmp_path: Path, pixels: NDArray[np.uint8], order: tuple[str, str], score: float
) -> None:
    """torchvision's outputs have numbers for names; RetinaNet's and FCOS' scores come before the labels."""
    kinds = {"scores": "float[count]", "labels": "int64[count]"}
    renamed = "\n".join(f"out{at} = Identity ({name})" for at, name in enumerate(["boxes", *order]))
    outputs = ", ".join(f"{kind} out{at}" for at, kind in enumerate(["float[count, 4]", *map(kinds.get, order)]))
    source = suppressed(tmp_path / "source.onnx", f"\n{renamed}", outputs, score=score)
    record = adapt_file(source, tmp_path / "adapted.onnx", Overrides(names=NAMES))
    candidates = open_runtime("onnxruntime", tmp_path / "adapted.onnx", threads=1).detect(pixels)
    found = candidates[candidates.any(2)]
    assert (record.head, len(found) > 0) == ("separate", score < 1)
    assert not found[:, 5].any()
    assert ((found[:, 4] > score) & (found[:, 4] < 1)).all()


@pytest.mark.parametrize("score", [0.5, 2.0], ids=["some", "none on any image"])
def test_one_list_of_rows_that_suppression_left(tmp_path: Path, pixels: NDArray[np.uint8], score: float) -> None:
    """YOLOv7's export with `--end2end --max-wh`: only what the file says of its output tells the seven columns."""
    body = """
    labels_float = Cast <to = 1> (labels)
    nothing = Sub (scores, scores)
    number = Unsqueeze (nothing, one)
    score_list = Unsqueeze (scores, one)
    label_list = Unsqueeze (labels_float, one)
    rows = Concat <axis = 1> (number, boxes, label_list, score_list)
    shape_of_rows = Shape (rows)
    unknown = Identity (shape_of_rows)
    output = Reshape (rows, unknown)"""
    source = suppressed(tmp_path / "source.onnx", body, "float[count, 7] output", score=score)
    record = adapt_file(source, tmp_path / "adapted.onnx", Overrides(names=NAMES))
    candidates = open_runtime("onnxruntime", tmp_path / "adapted.onnx", threads=1).detect(pixels)
    found = candidates[candidates.any(2)]
    assert (record.head, record.candidates, len(found) > 0) == ("end-to-end", 300, score < 1)
    assert ((found[:, 4] > score) & (found[:, 4] < 1) & (found[:, 5] == 0)).all()


PADDLE_ROWS = """
    label_float = Cast <to = 1> (labels)
    label_list = Unsqueeze (label_float, one)
    score_list = Unsqueeze (scores, one)
    fetch_name_0 = Concat <axis = 1> (label_list, score_list, boxes)
    how_many = Shape (labels)
    fetch_name_1 = Cast <to = 6> (how_many)"""


@pytest.mark.parametrize("score", [0.5, 2.0], ids=["some", "none on any image"])
def test_paddledetections_count_of_rows_is_left_out_whatever_its_name(
    tmp_path: Path, pixels: NDArray[np.uint8], score: float
) -> None:
    outputs = "float[count, 6] fetch_name_0, int32[1] fetch_name_1"
    source = suppressed(tmp_path / "source.onnx", PADDLE_ROWS, outputs, score=score)
    record = adapt_file(source, tmp_path / "adapted.onnx", Overrides(names=NAMES))
    assert (record.head, record.spec.placement) == ("end-to-end", "stretch")
    assert any("PaddleDetection's: images are stretched" in line for line in describe(record))
    found = open_runtime("onnxruntime", tmp_path / "adapted.onnx", threads=1).detect(pixels)
    found = found[found.any(2)]
    assert (len(found) > 0) == (score < 1)
    assert ((found[:, 4] > score) & (found[:, 4] < 1) & (found[:, 5] == 0)).all()
    assert (found[:, 2:4] >= found[:, :2]).all()


FLAT = """
    label_float = Cast <to = 1> (labels)
    label_list = Unsqueeze (label_float, one)
    score_list = Unsqueeze (scores, one)
    nothing = Sub (score_list, score_list)
    graph2_flat_predictions = Concat <axis = 1> (nothing, boxes, score_list, label_list)"""

APART = """
    label_table = Unsqueeze (labels, zero)
    score_table = Unsqueeze (scores, zero)
    box_table = Unsqueeze (boxes, zero)
    shape_of_boxes = Shape (box_table)
    graph2_pred_boxes = Reshape (box_table, shape_of_boxes)
    graph2_pred_scores = Identity (score_table)
    graph2_pred_classes = Identity (label_table)
    how_many = Shape (labels)
    graph2_num_predictions = Unsqueeze (how_many, zero)"""
APART_OUTPUTS = (
    "int64[1, 1] graph2_num_predictions, float[1, a, b] graph2_pred_boxes, float[1, a] graph2_pred_scores, "
    "int64[1, a] graph2_pred_classes"
)


@pytest.mark.parametrize("score", [0.5, 2.0], ids=["some", "none on any image"])
@pytest.mark.parametrize(
    ("body", "outputs", "head"),
    [(FLAT, "float[count, 7] graph2_flat_predictions", "end-to-end"), (APART, APART_OUTPUTS, "separate")],
    ids=["flat", "batch"],
)
def test_yolo_nas_with_suppression_inside(
    tmp_path: Path, pixels: NDArray[np.uint8], body: str, outputs: str, head: str, score: float
) -> None:
    """Both of super-gradients' formats: in rows, the score comes before the label, unlike YOLOv7's."""
    source = suppressed(tmp_path / "source.onnx", body, outputs, score=score)
    record = adapt_file(source, tmp_path / "adapted.onnx", Overrides(names=NAMES))
    assert record.head == head
    found = open_runtime("onnxruntime", tmp_path / "adapted.onnx", threads=1).detect(pixels)
    found = found[found.any(2)]
    assert (len(found) > 0) == (score < 1)
    assert ((found[:, 4] > score) & (found[:, 4] < 1) & (found[:, 5] == 0)).all()


@pytest.mark.parametrize("filling", [0, -1])
def test_rows_that_fill_up_say_nothing_of_boxes(filling: int) -> None:
    boxes = np.full((1, 50, 4), filling, np.float32)
    others = [np.full((1, 50), filling), np.zeros((1, 50), np.int64)]
    named = zip(("pred_boxes", "pred_scores", "pred_classes"), (boxes, *others), strict=True)
    outputs = tuple(Output(name, (1, None, 4)[: values.ndim], "", (values,)) for name, values in named)
    reading = SEPARATE.read(Source(outputs, 64, 64, 17))
    assert (reading.boxes, reading.unit) == ("corners", "pixels")


def test_rows_whose_scores_are_all_1_are_told_by_labels_that_no_score_reaches() -> None:
    """A detector that was trained on 0..1 and is shown 0..255 may be sure of everything."""
    boxes = np.array([[10.0, 10, 60, 60]] * 20)
    labels, ones, number = np.arange(20.0) + 3, np.ones(20), np.zeros(20)
    for columns, score in (((labels, ones), 6), ((ones, labels), 5)):
        rows = np.column_stack([number, boxes, *columns])[None]
        source = Source((Output("output", (1, None, 7), "Concat", (rows,)),), 64, 64, 17)
        order = rows_of._order(source)
        assert order is not None
        assert order.score == score


def test_of_two_tables_of_four_columns_the_boxes_are_larger_than_any_logit() -> None:
    """libreyolo calls the outputs of YOLO-NAS the wrong way round; with four classes only the numbers tell."""
    rng = np.random.default_rng(3)
    first = rng.uniform(0, 300, (1, 2100, 2))
    boxes = np.concatenate([first, first + rng.uniform(10, 60, first.shape)], axis=2)
    scores = rng.uniform(0, 0.3, (1, 2100, 4))
    outputs = (
        Output("pred_logits", (1, 2100, 4), "Concat", (boxes,)),
        Output("pred_boxes", (1, 2100, 4), "Sigmoid", (scores,)),
    )
    reading = SPLIT.read(Source(outputs, 320, 320, 17))
    assert (reading.boxes, reading.unit, reading.activation) == ("corners", "pixels", "none")


# --- COCO


def by_ids(path: Path, count: int, names: list[str] | None) -> Path:
    """Queries whose columns are so many classes."""
    body = """flat = Reshape (cells, flat_shape)
        columns = Transpose <perm = [0, 2, 1]> (flat)
        box_logits, all_logits = Split <axis = 2> (columns, parts)
        logits = Sub (all_logits, quiet)
        boxes = Sigmoid (box_logits)"""
    outputs = f"float[N, 64, {count}] logits, float[N, 64, 4] boxes"
    conv_model(path, body, "", 4 + count, outputs=outputs)
    quiet = np.array(4, np.float32)
    add_constants(path, flat_shape=np.array([0, 4 + count, -1]), parts=np.array([4, count]), quiet=quiet)
    if names:
        model = onnx.load(path)
        entry = model.metadata_props.add()
        entry.key, entry.value = "names", str(dict(enumerate(names)))
        onnx.save(model, path)
    return path


def test_cocos_ids_have_gaps() -> None:
    assert (len(COCO), len(coco_by_id())) == (80, 80)
    assert [coco_by_id()[number] for number in (1, 13, 44, 67, 70, 90)] == [
        "person",
        "stop sign",
        "bottle",
        "dining table",
        "toilet",
        "toothbrush",
    ]
    assert sorted(set(range(91)) - set(coco_by_id())) == [0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83]


def test_cocos_80_names_are_put_to_its_ids_where_a_head_has_91_columns(tmp_path: Path) -> None:
    given = record_of(adapt(by_ids(tmp_path / "a.onnx", 91, None), Overrides(names=COCO)))
    own = record_of(adapt(by_ids(tmp_path / "b.onnx", 91, list(COCO))))
    for record in (given, own):
        assert record.spec.class_names[1] == "person"
        assert record.spec.class_names[90] == "toothbrush"
        assert record.spec.class_names[12] == "class 12"
        assert record.reading is not None
        assert (record.reading.activation, record.reading.no_object) == ("sigmoid", "none")
    eighty = record_of(adapt(by_ids(tmp_path / "c.onnx", 80, list(COCO))))
    assert eighty.spec.class_names == COCO


@pytest.mark.parametrize("names", [NAMES * 16, [*COCO[1:], COCO[0]], COCO[:79]], ids=["others", "shuffled", "79"])
def test_other_names_are_never_put_to_cocos_ids(tmp_path: Path, names: list[str]) -> None:
    path = by_ids(tmp_path / "source.onnx", 91, None)
    with pytest.raises(BuildError, match=f"the model has 91 classes, but {len(names)} names were given"):
        adapt(path, Overrides(names=list(names)))
    with pytest.raises(BuildError, match="the model's metadata names classes up to"):
        adapt(by_ids(tmp_path / "named.onnx", 91, list(names)))


def test_who_asks_for_names_says_where_they_begin(tmp_path: Path) -> None:
    source = suppressed(
        tmp_path / "source.onnx", "", "float[count, 4] boxes, float[count] scores, int64[count] labels", score=0.5
    )
    with pytest.raises(BuildError, match="one for each label from 0 on; torchvision's 0 is the background"):
        adapt(source)


def test_a_graph_that_the_checker_refuses_is_no_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object, full_check: bool = False) -> None:
        if full_check:
            raise onnx.shape_inference.InferenceError("(op_type:Concat): inputs has inconsistent type")

    monkeypatch.setattr(onnx.checker, "check_model", refuse)
    with pytest.raises(BuildError, match=r"ONNX's own checker refuses the adapted graph: \(op_type:Concat\)"):
        adapt(by_ids(tmp_path / "source.onnx", 91, list(COCO)))
