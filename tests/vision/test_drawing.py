"""Where boxes and labels go on a picture, and in which colours."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triptych.vision import drawing
from triptych.vision.drawing import class_colour, font_size, line_width, place_label, text_colour


@given(
    st.tuples(*[st.floats(-100, 5000)] * 4),
    st.tuples(st.integers(1, 300), st.integers(1, 60)),
    st.tuples(st.integers(1, 4000), st.integers(1, 4000)),
)
def test_labels_stay_inside(box: tuple[float, ...], label_wh: tuple[int, int], resolution_wh: tuple[int, int]) -> None:
    corner = place_label(box, label_wh, resolution_wh)
    for start, length, limit in zip(corner, label_wh, resolution_wh, strict=True):
        assert start >= 0
        assert start + length <= limit or start == 0


def test_classes_have_colours_that_differ() -> None:
    colours = np.array([class_colour(label) for label in range(80)])
    assert len(np.unique(colours, axis=0)) == 80
    assert (np.abs(np.diff(colours, axis=0)).sum(axis=1) > 100).all()


@given(st.integers(0, 10_000))
def test_text_can_be_read_on_its_label(label: int) -> None:
    background, text = class_colour(label), text_colour(class_colour(label))
    assert abs(np.dot(np.subtract(background, text), (0.2126, 0.7152, 0.0722))) > 100


@pytest.mark.parametrize(
    ("resolution_wh", "line", "font"),
    [((1, 1), 1, 10), ((320, 240), 1, 10), ((640, 480), 2, 13), ((1920, 1080), 4, 30), ((2160, 3840), 8, 60)],
)
def test_strokes_follow_the_resolution(resolution_wh: tuple[int, int], line: int, font: int) -> None:
    assert (line_width(resolution_wh), font_size(resolution_wh)) == (line, font)


def test_docstring_examples() -> None:
    assert doctest.testmod(drawing).failed == 0
