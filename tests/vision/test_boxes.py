"""Suppression and the way back from the letterbox: tables of cases, and what must hold for any boxes."""

from __future__ import annotations

import time
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from triptych.contract import DEFAULT_ROWS, Placement, Truncated
from triptych.errors import ContractError
from triptych.vision.boxes import Floats, iou_xyxy, letterbox_xyxy, nms_xyxy, postprocess, unletterbox_xyxy
from triptych.vision.letterbox import letterbox_geometry

WHOLE = np.array([[1, 1, 0, 0, 640, 640]], np.float32)
"""Geometry of an image that fills the letterbox as it is."""


def table(*rows: tuple[float, ...], columns: int = 4) -> Floats:
    return np.array(rows, np.float32).reshape(-1, columns)


ROUNDING = 1e-6
"""By how much an overlap in float32 may be off."""

Case = tuple[Floats, Floats, NDArray[np.int32]]
"""Boxes [n, 4], scores [n] and labels [n]."""


@st.composite
def boxes_scores_labels(draw: st.DrawFn) -> Case:
    count = draw(st.integers(0, 40))
    corner = draw(hnp.arrays(np.float32, (count, 2), elements=st.floats(0, 500, width=32)))
    size = draw(hnp.arrays(np.float32, (count, 2), elements=st.floats(1, 120, width=32)))
    scores = draw(hnp.arrays(np.float32, count, elements=st.floats(0.0625, 1, width=32)))
    labels = draw(hnp.arrays(np.int32, count, elements=st.integers(0, 2)))
    return np.hstack([corner, corner + size]), scores, labels


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (table(), table(), np.zeros((0, 0))),
        (table((0, 0, 1, 1)), table(), np.zeros((1, 0))),
        (table((0, 0, 2, 2)), table((0, 0, 2, 2)), [[1]]),
        (table((0, 0, 2, 2)), table((1, 0, 3, 2)), [[1 / 3]]),
        (table((0, 0, 2, 2)), table((2, 0, 4, 2)), [[0]]),
        (table((1, 1, 1, 1)), table((1, 1, 1, 1)), [[0]]),
        (table((3, 3, 1, 1)), table((0, 0, 4, 4)), [[0]]),
    ],
)
def test_iou(a: Floats, b: Floats, expected: Any) -> None:
    np.testing.assert_allclose(iou_xyxy(a, b), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("boxes", "scores", "labels", "threshold", "kept"),
    [
        (table(), [], [], 0.5, []),
        (table((0, 0, 10, 10)), [0.9], [0], 0.5, [0]),
        (table((0, 0, 10, 10), (1, 0, 11, 10)), [0.5, 0.9], [0, 0], 0.5, [1]),
        (table((0, 0, 10, 10), (1, 0, 11, 10)), [0.5, 0.9], [0, 1], 0.5, [1, 0]),
        (table((0, 0, 10, 10), (1, 0, 11, 10)), [0.5, 0.9], [0, 0], 1.0, [1, 0]),
        (table((0, 0, 10, 10), (0, 0, 10, 10)), [0.5, 0.5], [0, 0], 0.5, [0]),
        # The middle one is suppressed, so it does not suppress the third in its turn.
        (table((0, 0, 10, 10), (3, 0, 13, 10), (6, 0, 16, 10)), [0.9, 0.8, 0.7], [0, 0, 0], 0.5, [0, 2]),
    ],
)
def test_nms(boxes: Floats, scores: list[float], labels: list[int], threshold: float, kept: list[int]) -> None:
    indices = nms_xyxy(boxes, np.array(scores, np.float32), np.array(labels, np.int32), threshold)
    assert indices.tolist() == kept


@given(boxes_scores_labels(), st.floats(0.0, 0.99))
def test_what_stays_does_not_overlap_and_what_goes_has_a_stronger_rival(case: Case, threshold: float) -> None:
    boxes, scores, labels = case
    kept = nms_xyxy(boxes, scores, labels, threshold)
    assert len(set(kept.tolist())) == len(kept)
    assert (np.diff(scores[kept]) <= 0).all()
    overlaps = iou_xyxy(boxes, boxes) * (labels[:, None] == labels)
    among_kept = overlaps[np.ix_(kept, kept)]
    assert not (among_kept > threshold + ROUNDING)[~np.eye(len(kept), dtype=bool)].any()
    for gone in set(range(len(boxes))) - set(kept.tolist()):
        assert any(overlaps[gone, strong] > threshold - ROUNDING and scores[strong] >= scores[gone] for strong in kept)


@given(boxes_scores_labels(), st.floats(0.0, 0.99), st.randoms(use_true_random=False))
def test_the_order_of_the_boxes_does_not_matter(case: Case, threshold: float, random: Random) -> None:
    boxes, _, labels = case
    scores = np.linspace(1, 0.5, len(boxes), dtype=np.float32)  # no two alike: ties go by position
    shuffled = np.array(random.sample(range(len(boxes)), len(boxes)), dtype=np.int64)
    straight = nms_xyxy(boxes, scores, labels, threshold)
    mixed = shuffled[nms_xyxy(boxes[shuffled], scores[shuffled], labels[shuffled], threshold)]
    assert straight.tolist() == mixed.tolist()


@given(
    st.integers(1, 5000),
    st.integers(1, 5000),
    st.sampled_from([(640, 640), (416, 416), (640, 384), (1, 1)]),
    st.sampled_from(["center", "top_left", "stretch"]),
    hnp.arrays(np.float64, (5, 2, 2), elements=st.floats(0, 1)),
)
def test_letterbox_there_and_back(
    width: int, height: int, target: tuple[int, int], placement: Placement, fractions: NDArray[np.float64]
) -> None:
    low, high = fractions.min(1), fractions.max(1)
    boxes = (np.hstack([low, high]) * [width, height, width, height]).astype(np.float32)
    geometry = np.array(letterbox_geometry(width, height, target[0], target[1], placement), np.float32)
    back = unletterbox_xyxy(letterbox_xyxy(boxes, geometry), geometry)
    assert np.abs(back - boxes).max() <= 1e-3 * max(width, height)
    assert (back >= 0).all()
    assert (back <= [width, height, width, height]).all()


def candidates(*rows: tuple[float, ...], k: int = 300) -> Floats:
    filled = np.zeros((1, k, 6), np.float32)
    filled[0, : len(rows)] = table(*rows, columns=6)
    return filled


@pytest.mark.parametrize(
    ("rows", "geometry", "expected"),
    [
        pytest.param([], WHOLE, [], id="nothing"),
        pytest.param([(10, 20, 30, 40, 0.9, 3)], WHOLE, [(10, 20, 30, 40, 0.9, 3)], id="as it is"),
        pytest.param([(10, 20, 30, 40, 0.24, 3)], WHOLE, [], id="below the threshold"),
        pytest.param([(10, 20, 30, 40, 0.25, 3)], WHOLE, [(10, 20, 30, 40, 0.25, 3)], id="at the threshold"),
        pytest.param([(-5, -5, 700, 650, 0.9, 0)], WHOLE, [(0, 0, 640, 640, 0.9, 0)], id="clipped to the image"),
        pytest.param([(650, 10, 700, 50, 0.9, 0)], WHOLE, [], id="next to the image"),
        pytest.param([(np.nan, 10, 20, 50, 0.9, 0)], WHOLE, [], id="not a number"),
        pytest.param([(10, 10, np.inf, 50, 0.9, 0)], WHOLE, [], id="infinite"),
        pytest.param(
            [(110, 60, 210, 160, 0.9, 1)],
            np.array([[0.5, 0.25, 100, 50, 1000, 1000]], np.float32),
            [(20, 40, 220, 440, 0.9, 1)],
            id="out of the letterbox",
        ),
        pytest.param([(10, 20, 30, 40, 0.9, 3)], np.zeros((1, 6), np.float32), [], id="unreadable image"),
    ],
)
def test_postprocess(rows: list[tuple[float, ...]], geometry: Floats, expected: list[tuple[float, ...]]) -> None:
    detected = postprocess(candidates(*rows), geometry, score_threshold=0.25, iou_threshold=0.5)
    count = detected.counts[0, 0]
    assert count == len(expected)
    result = np.column_stack([detected.boxes_xyxy[0], detected.scores[0], detected.labels[0]])
    np.testing.assert_allclose(result[:count], table(*expected, columns=6), rtol=1e-6)
    assert not result[count:].any()
    assert [array.dtype for array in detected] == [np.float32, np.float32, np.int32, np.int32, np.int32]


def test_a_score_of_zero_is_never_a_detection() -> None:
    detected = postprocess(candidates((1, 1, 9, 9, 0, 0)), WHOLE, score_threshold=0, iou_threshold=1)
    assert detected.counts[0, 0] == 0


def test_no_more_than_there_are_rows_and_those_the_best() -> None:
    rows = [(2 * i, 0, 2 * i + 1, 1, 1 - i / 400, 0) for i in range(300)]
    detected = postprocess(candidates(*rows), WHOLE, score_threshold=0.1, iou_threshold=0.5, rows=100)
    assert detected.counts[0, 0] == 100
    assert detected.truncated[0, 0] == Truncated.CANDIDATES | Truncated.ROWS
    np.testing.assert_allclose(detected.scores[0], [row[4] for row in rows[:100]], rtol=1e-6)


@pytest.mark.parametrize(
    ("count", "k", "rows", "truncated"),
    [
        (10, 20, 10, Truncated(0)),
        (10, 10, 10, Truncated.CANDIDATES),
        (10, 20, 9, Truncated.ROWS),
        (0, 0, 9, Truncated(0)),
    ],
)
def test_what_cut_an_image_off_is_said(count: int, k: int, rows: int, truncated: Truncated) -> None:
    table = [(2 * i, 0, 2 * i + 1, 1, 0.9, 0) for i in range(count)]
    detected = postprocess(candidates(*table, k=k), WHOLE, score_threshold=0.9, iou_threshold=0.5, rows=rows)
    assert (detected.counts[0, 0], detected.truncated[0, 0]) == (min(count, rows), truncated)


@given(boxes_scores_labels(), st.floats(0.0, 1.0), st.integers(1, 400))
def test_a_limit_keeps_the_best(case: Case, threshold: float, limit: int) -> None:
    boxes, scores = np.tile(case[0], (8, 1)), np.tile(case[1], 8)  # more than one block
    labels = np.concatenate([case[2] + 3 * copy for copy in range(8)])
    whole = nms_xyxy(boxes, scores, labels, threshold)
    assert nms_xyxy(boxes, scores, labels, threshold, limit).tolist() == whole[:limit].tolist()


@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.floats(0, 1))
def test_images_of_a_batch_are_as_each_alone(seed: int, score_threshold: float, iou_threshold: float) -> None:
    rng = np.random.default_rng(seed)
    size, k, rows = int(rng.integers(1, 6)), int(rng.integers(1, 300)), int(rng.integers(1, 100))
    batch = rng.uniform(-50, 700, (size, k, 6)).astype(np.float32)  # half of the boxes have no area
    batch[..., 4] = rng.uniform(0, 1, (size, k)) * rng.integers(0, 2, (size, 1))
    batch[..., 5] = rng.integers(0, 3, (size, k))
    batch[rng.random(batch.shape) < 0.001] = np.nan
    geometry = np.tile(np.array([[0.5, 0.5, 10, 20, 1000, 900]], np.float32), (size, 1))
    geometry[:, :2] *= rng.uniform(0.5, 2, (size, 1))
    geometry[rng.random(size) < 0.2] = 0
    together = postprocess(batch, geometry, score_threshold=score_threshold, iou_threshold=iou_threshold, rows=rows)
    for image in range(size):
        one = slice(image, image + 1)
        alone = postprocess(
            batch[one], geometry[one], score_threshold=score_threshold, iou_threshold=iou_threshold, rows=rows
        )
        for whole, single in zip(together, alone, strict=True):
            np.testing.assert_array_equal(whole[one], single)


@pytest.mark.parametrize(
    "flaw",
    [(30, 30, 10, 40), (10, 40, 30, 10), (30, 40, 10, 10), (20, 20, 20, 20), (10, 10, np.inf, 40), (np.nan,) * 4],
)
def test_what_is_no_box_has_no_vote(flaw: tuple[float, ...]) -> None:
    found = candidates((*flaw, 0.9, 0), (*flaw, 0.9, 0), (10, 10, 30, 40, 0.8, 0), k=3)
    detected = postprocess(found, WHOLE, score_threshold=0.5, iou_threshold=0)
    np.testing.assert_array_equal(detected.boxes_xyxy[0, :2], table((10, 10, 30, 40), (0, 0, 0, 0)))
    assert detected.truncated[0, 0] == Truncated.CANDIDATES, "it was one of the K candidates all the same"


def test_a_box_in_the_border_has_a_vote() -> None:
    geometry = np.array([[1, 1, 0, 100, 640, 440]], np.float32)
    border, below = (0, 40, 100, 100, 0.9, 0), (0, 60, 100, 110, 0.8, 0)
    detected = postprocess(candidates(border, below), geometry, score_threshold=0.5, iou_threshold=0.3)
    assert detected.counts[0, 0] == 0
    detected = postprocess(candidates(border, below), geometry, score_threshold=0.5, iou_threshold=0.9)
    assert detected.counts[0, 0] == 1


def test_boxes_of_two_classes_do_not_suppress_each_other_wherever_they_are() -> None:
    rows = [(x, y, x + 30, y + 30, 0.9, label) for x, y in ((-700, -700), (5, 5), (1e6, 1e6)) for label in (0, 1, 79)]
    boxes = table(*rows, columns=6)
    assert len(nms_xyxy(boxes[:, :4], boxes[:, 4], boxes[:, 5], 0.5)) == 9


@pytest.mark.timing
def test_a_batch_costs_less_than_its_images_one_by_one() -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 600, (16, 20, 2))
    batch = np.zeros((16, 1000, 6), np.float32)
    batch[:, :20, :4] = np.concatenate([corners, corners + 40], 2)
    batch[:, :20, 4] = 0.9
    geometry = np.repeat(WHOLE, 16, 0)

    def cost(images: int) -> float:
        def once() -> float:
            began = time.thread_time()
            for start in range(0, 16, images):
                some = slice(start, start + images)
                postprocess(batch[some], geometry[some], score_threshold=0.5, iou_threshold=0.5)
            return time.thread_time() - began

        return min(once() for _ in range(20))

    assert cost(16) < 0.75 * cost(1)


def test_an_empty_batch() -> None:
    detected = postprocess(
        np.zeros((0, 300, 6), np.float32), np.zeros((0, 6), np.float32), score_threshold=0.5, iou_threshold=0.5
    )
    assert detected.boxes_xyxy.shape == (0, DEFAULT_ROWS, 4)


@given(hnp.arrays(np.float32, (2, 30, 6), elements=st.floats(-1000, 1000, width=32)), st.floats(0, 1), st.floats(0, 1))
def test_whatever_the_engine_says_boxes_lie_in_the_image(
    rows: Floats, score_threshold: float, iou_threshold: float
) -> None:
    geometry = np.array([letterbox_geometry(1920, 1080, 640, 640), letterbox_geometry(33, 77, 640, 640)], np.float32)
    detected = postprocess(rows, geometry, score_threshold=score_threshold, iou_threshold=iou_threshold)
    for image, (width, height) in enumerate([(1920, 1080), (33, 77)]):
        count = detected.counts[image, 0]
        boxes = detected.boxes_xyxy[image]
        assert (boxes >= 0).all()
        assert (boxes <= [width, height, width, height]).all()
        assert (boxes[:count, 2:] > boxes[:count, :2]).all()
        assert not boxes[count:].any()
        assert (np.diff(detected.scores[image, :count]) <= 0).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"candidates": np.zeros((3, 5), np.float32)}, r"candidates must be shape \(n, K, 6\), but got \(3, 5\)"),
        ({"geometry": np.zeros((1, 4), np.float32)}, r"geometry must be shape \(n, 6\), but got \(1, 4\)"),
        ({"geometry": np.zeros((2, 6), np.float32)}, "candidates of 1 images came with geometry of 2"),
        ({"score_threshold": 1.5}, r"score_threshold must be a number in 0..1, but got 1.5"),
        ({"iou_threshold": float("nan")}, r"iou_threshold must be a number in 0..1, but got nan"),
        ({"iou_threshold": "0.5"}, r"iou_threshold must be a number in 0..1, but got '0.5'"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"candidates": candidates(), "geometry": WHOLE}
    arguments |= {"score_threshold": 0.5, "iou_threshold": 0.5} | change
    with pytest.raises(ContractError, match=message):
        postprocess(**arguments)
