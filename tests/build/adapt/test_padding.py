"""The share of a detector's input that is border, and the shape that has the least."""

from __future__ import annotations

import pytest

from triptych_build.adapt.padding import describe_padding, least_padding, padding_share


@pytest.mark.parametrize(
    ("sizes", "shape", "share", "best"),
    [
        ([(640, 640)], (640, 640), 0, (640, 640)),
        ([(1920, 1080)], (640, 640), 7 / 16, (640, 384)),
        ([(1080, 1920)], (640, 640), 7 / 16, (384, 640)),
        ([(640, 480)] * 3, (416, 416), 1 / 4, (416, 320)),
        ([(1920, 1080), (1080, 1920)], (640, 640), 7 / 16, (640, 640)),
        ([(1920, 1080)], (640, 384), 1 - 360 / 384, (640, 384)),
    ],
)
def test_what_is_border(
    sizes: list[tuple[int, int]], shape: tuple[int, int], share: float, best: tuple[int, int]
) -> None:
    assert padding_share(sizes, shape) == pytest.approx(share)
    assert least_padding(sizes, shape) == best


def test_what_is_said() -> None:
    assert describe_padding([(1920, 1080)] * 9, (640, 640)) == (
        "size: 44% of 640x640 is border on 9 images; 640x384 shows them as large and has 6% (export it so, or "
        "--size 640x384 where the graph allows it)"
    )
    assert " has 0% (" in describe_padding([(640, 480)] * 159, (256, 256)), "and not -0%"
    assert describe_padding([(64, 64)], (640, 640)).endswith("is border on 1 images, and no shape has less")
