"""What was found, as values, as JSON and as a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triptych import detections
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


def test_nothing_found() -> None:
    nothing = make()
    assert (len(nothing), nothing.names, list(nothing)) == (0, (), [])
    assert nothing.to_dict() == {"source": None, "error": "", "detections": []}


def test_failed() -> None:
    failed = Detections.failed("no image", NAMES, "a.jpg")
    assert failed.boxes_xyxy.shape == (0, 4)
    assert failed.boxes_xyxy.dtype == failed.scores.dtype == np.float32
    assert failed.labels.dtype == np.int32
    assert failed.to_dict() == {"source": "a.jpg", "error": "no image", "detections": []}
    assert repr(failed) == "<Detections error='no image' in a.jpg>"


def test_json() -> None:
    assert json.loads(TWO.to_json()) == {
        "source": "street.jpg",
        "error": "",
        "detections": [
            {"name": "car", "label": 2, "score": 0.9, "box_xyxy": [1.25, 2, 30, 40]},
            {"name": "person", "label": 0, "score": 0.1, "box_xyxy": [5, 6, 7, 8]},
        ],
    }
    assert "é" in Detections.failed("é").to_json(indent=2)


@given(st.floats(0, 1e6, width=32))
def test_json_keeps_every_bit(value: float) -> None:
    [row] = json.loads(make((value, 0, value, 1, 0.5, 0)).to_json())["detections"]
    assert np.float32(row["box_xyxy"][0]) == np.float32(value)


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
    assert (drawn.shape, drawn.dtype) == (PICTURE.shape, np.uint8)
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


def label_height(drawn: np.ndarray, colour: tuple[int, int, int]) -> int:
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
    found = Detections(
        np.tile(np.float32([10, 100, 90, 190]), (3, 1)), np.ones(3, np.float32), np.arange(3, dtype=np.int32), names
    )
    assert (found.draw(PICTURE) != PICTURE).any()


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
