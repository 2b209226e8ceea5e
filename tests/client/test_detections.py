"""Detections as values, as JSON, as a picture, and as those of supervision."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from triptych import detections
from triptych.contract import Truncated
from triptych.detections import Detection, Detections
from triptych.errors import ContractError, ImageError
from triptych.vision.drawing import class_colour

NAMES = ("person", "bicycle", "car")


def make(*rows: tuple[float, float, float, float, float, int], **options: Any) -> Detections:
    """One (x1, y1, x2, y2, score, label) for each object."""
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].astype(np.int32), NAMES, **options)


TWO = make((1.25, 2, 30, 40, 0.9, 2), (5, 6, 7, 8, 0.1, 0), source="street.jpg")


def test_rows() -> None:
    assert len(TWO) == 2
    assert TWO.names == ("car", "person")
    assert list(TWO) == [
        Detection("car", 2, 0.9, (1.25, 2.0, 30.0, 40.0)),
        Detection("person", 0, 0.1, (5.0, 6.0, 7.0, 8.0)),
    ]
    assert repr(TWO) == "<Detections 2 objects in street.jpg>"


def test_no_objects() -> None:
    nothing = make()
    assert (len(nothing), nothing.names, list(nothing)) == (0, (), [])
    assert nothing.to_dict() == {"source": None, "error": "", "truncated": [], "detections": []}


def test_failed() -> None:
    failed = Detections.failed("no image", NAMES, "a.jpg")
    assert failed.boxes_xyxy.shape == (0, 4)
    assert failed.boxes_xyxy.dtype == failed.scores.dtype == np.float32
    assert failed.labels.dtype == np.int32
    assert failed.to_dict() == {"source": "a.jpg", "error": "no image", "truncated": [], "detections": []}
    assert repr(failed) == "<Detections error='no image' in a.jpg>"


def test_json() -> None:
    assert json.loads(TWO.to_json()) == {
        "source": "street.jpg",
        "error": "",
        "truncated": [],
        "detections": [
            {"name": "car", "label": 2, "score": 0.9, "box_xyxy": [1.25, 2, 30, 40]},
            {"name": "person", "label": 0, "score": 0.1, "box_xyxy": [5, 6, 7, 8]},
        ],
    }
    assert "é" in Detections.failed("é").to_json(indent=2)
    assert replace(TWO, truncated=Truncated(3)).to_dict()["truncated"] == ["candidates", "rows"]
    assert replace(TWO, truncated=Truncated.ROWS)[:1].truncated == Truncated.ROWS


@given(st.floats(0, 1e6, width=32))
def test_json_keeps_every_bit(value: float) -> None:
    [row] = json.loads(make((value, 0, value, 1, 0.5, 0)).to_json())["detections"]
    assert np.float32(row["box_xyxy"][0]) == np.float32(value)


THREE = make((0, 0, 1, 1, 0.9, 2), (0, 0, 2, 2, 0.5, 0), (0, 0, 3, 3, 0.1, 2), source="street.jpg")


@pytest.mark.parametrize(
    ("index", "rows"),
    [
        (0, [0]),
        (-1, [2]),
        (np.int64(1), [1]),
        (slice(1, None), [1, 2]),
        (slice(None, None, -1), [2, 1, 0]),
        (slice(7, 9), []),
        ([], []),
        ([2, 0], [2, 0]),
        ((1, 1), [1, 1]),
        ([True, False, True], [0, 2]),
        (np.array([False, True, False]), [1]),
        (np.array([-1, 0], np.int8), [2, 0]),
        (np.zeros(0, int), []),
    ],
)
def test_an_index_chooses_objects(index: Any, rows: list[int]) -> None:
    chosen = THREE[index]
    assert list(chosen) == [list(THREE)[row] for row in rows]
    assert (chosen.class_names, chosen.source, chosen.error) == (NAMES, "street.jpg", "")
    assert [array.dtype.name for array in (chosen.boxes_xyxy, chosen.scores, chosen.labels)] == [
        "float32",
        "float32",
        "int32",
    ]


def test_a_mask_of_scores_and_one_of_names() -> None:
    assert THREE[THREE.scores > 0.3].labels.tolist() == [2, 0]
    assert THREE[[name == "car" for name in THREE.names]].scores.tolist() == pytest.approx([0.9, 0.1])


def test_nothing_is_chosen_from_a_failed_image() -> None:
    failed = Detections.failed("no image", NAMES, "a.jpg")
    indices: list[Any] = [failed.scores > 0.5, [], slice(None)]
    for index in indices:
        assert (len(failed[index]), failed[index].error, failed[index].source) == (0, "no image", "a.jpg")


@pytest.mark.parametrize("index", [3, -4, [0, 3], np.array([5])])
def test_an_object_that_is_not_there(index: Any) -> None:
    with pytest.raises(IndexError, match=r"there is no object (3|-4|5): the detections have 3 objects"):
        THREE[index]


@pytest.mark.parametrize(
    ("index", "came"),
    [
        ([True, False], r"\[True, False\]"),
        (np.ones(4, bool), r"bool \[4\]"),
        (np.ones((3, 1), bool), r"bool \[3, 1\]"),
        (np.zeros((1, 1), int), r"int64 \[1, 1\]"),
        (np.zeros(2), r"float64 \[2\]"),
        (1.5, "1.5"),
        (True, "True"),
        ("car", "'car'"),
        (None, "None"),
        ([[0], [1, 2]], r"\[\[0\], \[1, 2\]\]"),
    ],
)
def test_what_is_not_an_index(index: Any, came: str) -> None:
    words = rf"chosen by an integer, a slice, a mask bool \[3\] or integers, but got {came}$"
    with pytest.raises(ContractError, match=words):
        THREE[index]


def test_supervision_gets_everything() -> None:
    theirs = THREE.to_supervision()
    np.testing.assert_array_equal(theirs.xyxy, THREE.boxes_xyxy)
    np.testing.assert_array_equal(theirs.confidence, THREE.scores)
    assert theirs.class_id.tolist() == [2, 0, 2]
    assert theirs.data["class_name"].tolist() == ["car", "person", "car"]
    assert theirs[theirs.class_id == 2].data["class_name"].tolist() == ["car", "car"]
    theirs.xyxy[:] = 0
    assert THREE.boxes_xyxy.any(), "a copy"


def test_supervision_gets_nothing() -> None:
    theirs = make().to_supervision()
    assert len(theirs) == 0
    assert theirs.data["class_name"].dtype.kind == "U"


@pytest.mark.parametrize(
    ("boxes", "scores", "labels"), [((3, 5), 3, 3), ((3, 4), 2, 3), ((3, 4), 3, 2), ((12,), 12, 12)]
)
def test_shapes_are_checked(boxes: tuple[int, ...], scores: int, labels: int) -> None:
    with pytest.raises(ContractError, match=r"must be shape \(n, 4\), \(n,\) and \(n,\), but got"):
        Detections(np.zeros(boxes, np.float32), np.zeros(scores, np.float32), np.zeros(labels, np.int32), NAMES)


def test_all_is_sorted() -> None:
    assert detections.__all__ == sorted(detections.__all__)


# Drawing


PICTURE = np.full((480, 640, 3), 90, np.uint8)


def test_draw_gives_a_copy() -> None:
    before = PICTURE.copy()
    drawn = TWO.draw(PICTURE)
    assert (drawn.shape, drawn.dtype.name) == (PICTURE.shape, "uint8")
    assert drawn.flags.writeable
    assert not np.shares_memory(drawn, PICTURE)
    np.testing.assert_array_equal(PICTURE, before)


def test_nothing_to_draw() -> None:
    np.testing.assert_array_equal(make().draw(PICTURE), PICTURE)
    np.testing.assert_array_equal(Detections.failed("no image").draw(PICTURE), PICTURE)


def test_lines_lie_on_the_box_and_labels_above_it() -> None:
    drawn = make((100, 200, 300, 400, 0.9, 1)).draw(PICTURE)
    colour = class_colour(1)
    for y, x in [(200, 250), (400, 250), (300, 100), (300, 300), (201, 250), (399, 250)]:
        assert tuple(drawn[y, x]) == colour
    assert tuple(drawn[300, 200]) == (90, 90, 90)
    changed_rows = np.flatnonzero((drawn != PICTURE).any(axis=(1, 2)))
    assert (changed_rows.min(), changed_rows.max()) == (200 - label_height(drawn, colour), 400)


def label_height(drawn: NDArray[np.uint8], colour: tuple[int, int, int]) -> int:
    return int((drawn[:200, 100] == colour).all(axis=1).sum())


def test_the_best_comes_out_on_top() -> None:
    drawn = make((10, 100, 200, 200, 0.9, 0), (10, 100, 200, 200, 0.5, 1)).draw(PICTURE)
    assert tuple(drawn[200, 100]) == class_colour(0)


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 40, 3), (40, 3, 3), (20, 20), (1200, 1600, 3)])
@pytest.mark.parametrize("box", [(0, 0, 1, 1), (-5, -5, 1e4, 1e4), (0.4, 0.6, 0.4, 0.6), (30, 30, 20, 20)])
def test_any_picture_any_box(shape: tuple[int, ...], box: tuple[float, float, float, float]) -> None:
    drawn = make((*box, 0.5, 0)).draw(np.zeros(shape, np.uint8))
    assert drawn.shape == (*shape[:2], 3)


def test_names_outside_ascii() -> None:
    names = ("Straßenbahn", "自転車", "🚲")
    detections = Detections(
        np.tile(np.array([10, 100, 90, 190], np.float32), (3, 1)),
        np.ones(3, np.float32),
        np.arange(3, dtype=np.int32),
        names,
    )
    assert (detections.draw(PICTURE) != PICTURE).any()


def test_draw_on_a_path_and_on_bytes(tmp_path: Path) -> None:
    encoded = cv2.imencode(".png", PICTURE)[1].tobytes()
    path = tmp_path / "a.png"
    path.write_bytes(encoded)
    expected = TWO.draw(PICTURE)
    for image in (path, str(path), encoded, memoryview(encoded)):
        np.testing.assert_array_equal(TWO.draw(image), expected)


def test_draw_on_no_picture(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="there is no file"):
        TWO.draw(tmp_path / "none.png")
    with pytest.raises(ImageError):
        TWO.draw(b"no picture")
    with pytest.raises(ContractError, match=r"float64 \[2, 2\]"):
        TWO.draw(np.zeros((2, 2)))  # type: ignore[arg-type]
