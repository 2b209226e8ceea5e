"""The picture of a comparison of runtimes."""

from __future__ import annotations

from matplotlib.text import Text

from support.comparisons import comparison
from triptych_build.compare.plot import draw


def test_names_in_the_picture_do_not_cover_each_other() -> None:
    """Rows that are equally good and fast would write their names over each other."""
    rows = [(f"a runtime, number {number}", 30 + number * 0.1, 0.79) for number in range(6)]
    figure = draw(comparison(*rows))
    names = [text for text in figure.axes[1].texts if text.get_text()]
    assert sorted(text.get_text() for text in names) == sorted(label for label, _, _ in rows)
    figure.canvas.draw()
    boxes = [Text.get_window_extent(text) for text in names]
    assert not any(one.overlaps(other) for at, one in enumerate(boxes) for other in boxes[:at])
