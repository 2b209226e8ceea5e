"""A comparison of runtimes as a picture of speed and accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

from triptych_build.compare.measure import SCENARIOS
from triptych_build.compare.report import Comparison, Row, short

SHADES = ("#1f5f8b", "#6fa8c9", "#e0963c")
"""A colour for each scenario: dark and light blue for one stream, orange for two; apart in grey as well."""


def draw(comparison: Comparison) -> Figure:
    """Draw the measured rows: latencies as bars, and speed against accuracy."""
    rows = comparison.measured
    figure = Figure(figsize=(13, 1.8 + 0.62 * max(len(rows), 5)), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    bars, scatter = figure.subplots(1, 2, width_ratios=(1.15, 1))
    _draw_bars(bars, rows)
    _draw_scatter(scatter, rows)
    canvas.draw()
    figure.set_layout_engine("none")  # names are placed for the axes as they are now
    _place_labels(scatter, rows, canvas)
    return figure


def _draw_bars(axes: Axes, rows: Sequence[Row]) -> None:
    """Draw a group of bars for each row, one bar for each scenario, with a line on to its p95."""
    height = 0.8 / len(SCENARIOS)
    for number, (scenario, shade) in enumerate(zip(map(str, SCENARIOS), SHADES, strict=True)):
        for place, row in enumerate(rows, 1):
            at, one = place + (number - (len(SCENARIOS) - 1) / 2) * height, row.latency[scenario]
            axes.barh(at, one.p50_ms, height * 0.92, color=shade, label=scenario if place == 1 else None)
            axes.plot([one.p50_ms, one.p95_ms], [at, at], color="#444444", linewidth=1.2)
            axes.annotate(
                f"{short(one.p50_ms)} / {short(one.p95_ms)}",
                (one.p95_ms, at),
                (5, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
    axes.set_yticks(range(1, len(rows) + 1), [row.label for row in rows])
    axes.set_ylim(len(rows) + 0.6, 0.4)
    axes.set_xlim(0, 1.18 * max(one.p95_ms for row in rows for one in row.latency.values()))
    axes.set_xlabel("ms a call: bar to p50, line to p95; less is better")
    axes.set_title("Latency", loc="left", pad=26)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=len(SCENARIOS), frameon=False, borderaxespad=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_scatter(axes: Axes, rows: Sequence[Row]) -> None:
    """Draw one point a row; the axis spans two points of mAP or more, so that noise does not look like a difference."""
    x, y = _points(rows)
    axes.scatter(x, y, s=46, color=SHADES[0], zorder=3)
    middle, half = (max(y) + min(y)) / 2, max(0.01, 0.75 * (max(y) - min(y)))
    axes.set_ylim(middle - half, middle + half)
    axes.set_xlim(0, 1.15 * max(x))
    axes.set_xlabel(f"p50 of {SCENARIOS[0]}, ms; left is faster")
    axes.set_ylabel("mAP50-95; up is better")
    axes.set_title("Speed against accuracy", loc="left", pad=26)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _points(rows: Sequence[Row]) -> tuple[list[float], list[float]]:
    latencies = [row.latency[str(SCENARIOS[0])].p50_ms for row in rows]
    return latencies, [row.accuracy.map50_95 if row.accuracy else 0.0 for row in rows]


def _distance(offset: tuple[int, int]) -> float:
    return abs(offset[0]) + 1.5 * abs(offset[1])


OFFSETS = sorted(product(range(-120, 121, 30), (*range(13, 134, 15), *range(-13, -134, -15))), key=_distance)
"""Offsets of a name from its point, in 1/72 inch, nearest first."""


def _place_labels(axes: Axes, rows: Sequence[Row], canvas: FigureCanvasAgg) -> None:
    """Name every point at the nearest place where its name covers no other name, no point and no edge."""
    renderer, inside = canvas.get_renderer(), axes.get_window_extent()
    points = list(zip(*_points(rows), strict=True))
    taken = [Bbox.from_extents(x - 6, y - 6, x + 6, y + 6) for x, y in axes.transData.transform(points)]
    for row, point in zip(rows, points, strict=True):
        for offset in OFFSETS:
            label = _label(axes, row.label, point, offset)
            label.update_positions(renderer)
            box = Text.get_window_extent(label, renderer).padded(2)  # an annotation's own extent holds its line as well
            within = inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1
            if within and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            label.remove()
        else:  # more points than offsets: better two names over each other than none
            _label(axes, row.label, point, OFFSETS[0])


def _label(axes: Axes, text: str, point: tuple[float, float], offset: tuple[int, int]) -> Annotation:
    line = {"arrowstyle": "-", "color": "#999999", "linewidth": 0.7, "shrinkA": 0, "shrinkB": 4}
    return axes.annotate(
        text, point, offset, textcoords="offset points", ha="center", va="center", fontsize=8.5, arrowprops=line
    )
