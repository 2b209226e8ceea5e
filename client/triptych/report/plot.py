"""Charts as geometry: where a template draws lines, columns, ticks and labels, in units of a small SVG."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from triptych.report.blocks import Chart

WIDTH, HEIGHT = 400, 250
"""As wide as a phone, so that the letters keep their size there."""

LEFT, RIGHT, TOP, BOTTOM = 44, 18, 26, 40

LOG_FROM = 4.0
"""An axis that may be logarithmic becomes so where the largest value is so many times the smallest."""

MOST_STEPS = 5

LETTER, BOLD_LETTER = 6.5, 9.0
"""About the width of the widest letters, to keep labels apart and within the chart."""


@dataclass(frozen=True)
class Axis:
    """One axis, from `low` to `high`, with its ticks in order."""

    low: float
    high: float
    log: bool
    ticks: list[float]

    @classmethod
    def over(cls, values: Iterable[float], *, log: bool = False, zero: bool = True) -> Axis:
        """Return an axis that holds these values; with `log` it may be logarithmic, with `zero` it begins there."""
        values = list(values) or [0.0, 1.0]
        low, high = min(values), max(values)
        if log and low > 0 and high / low >= LOG_FROM:
            return cls._logarithmic(low, high)
        return cls._linear(min(0.0, low) if zero else low, high)

    @classmethod
    def _linear(cls, low: float, high: float) -> Axis:
        high = high if high > low else low + (abs(low) or 1.0)
        span = high - low
        step = next(step for step in _round_numbers(span / MOST_STEPS / 10) if span / step <= MOST_STEPS)
        first, last = math.floor(low / step), math.ceil(high / step)
        ticks = [number * step for number in range(first, last + 1)]
        return cls(ticks[0], ticks[-1], False, ticks)

    @classmethod
    def _logarithmic(cls, low: float, high: float) -> Axis:
        ticks: list[float] = []
        for number in _round_numbers(low / 10):
            if number <= low:
                ticks = [number]
            else:
                ticks.append(number)
            if number >= high:
                break
        return cls(ticks[0], ticks[-1], True, ticks)

    def at(self, value: float) -> float:
        """Return where a value lies, 0..1; a value beyond an end lies at that end."""
        if self.log:
            value = max(value, self.low)
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return min(max(share, 0.0), 1.0)


def _round_numbers(above: float) -> Iterable[float]:
    """Yield 1, 2 and 5 times powers of ten, upwards, from a little below `above`."""
    power = math.floor(math.log10(above))
    while True:
        for digit in (1, 2, 5):
            yield float(f"{digit}e{power}")
        power += 1


@dataclass(frozen=True)
class Tick:
    """A tick: where it is, and its text, which is empty where there is no room."""

    at: float
    text: str


@dataclass(frozen=True)
class Rule:
    """A line right across or down, and where its name stands."""

    name: str
    at: float
    text_x: float
    text_y: float
    anchor: str


@dataclass(frozen=True)
class Plot:
    """A chart, ready to be drawn.

    Attributes:
        chart: what it shows.
        x_ticks: along the bottom.
        y_ticks: along the left.
        x_label: with the unit, and the scale where it is logarithmic.
        y_label: the same for the other axis.
        paths: the `points` of each line's SVG polyline.
        dots: the points of each line.
        columns: x, y, width and height of each column, by series.
        marks: the points of each kind of mark.
        across: level rules.
        down: upright rules.
    """

    chart: Chart
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    x_label: str
    y_label: str
    paths: list[str]
    dots: list[list[tuple[float, float]]]
    columns: list[list[tuple[float, float, float, float]]]
    marks: list[list[tuple[float, float]]]
    across: list[Rule]
    down: list[Rule]

    width = WIDTH
    height = HEIGHT
    left = LEFT
    right = WIDTH - RIGHT
    top = TOP
    bottom = HEIGHT - BOTTOM


def plot(chart: Chart) -> Plot:
    """Lay a chart out."""
    points = [point for line in chart.lines for point in line.points]
    columns = [column for series in chart.columns for column in series.columns]
    xs = [x for x, _ in points] + [edge for first, last, _ in columns for edge in (first, last)]
    ys = [y for _, y in points] + [y for *_, y in columns]
    x_axis = Axis.over([*xs, *chart.down.values()], log=chart.log_x, zero=chart.zero_x)
    y_axis = Axis.over([*ys, *chart.across.values()], log=chart.log_y and not columns)

    def x_of(value: float) -> float:
        return round(LEFT + x_axis.at(value) * (WIDTH - LEFT - RIGHT), 2)

    def y_of(value: float) -> float:
        return round(HEIGHT - BOTTOM - y_axis.at(value) * (HEIGHT - TOP - BOTTOM), 2)

    def place(pairs: list[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(x_of(x), y_of(y)) for x, y in pairs]

    floor = y_of(0.0)
    dots = [place(line.points) for line in chart.lines]
    down = []
    for number, (name, value) in enumerate(chart.down.items()):
        x = x_of(value)
        fits = x + 4 + BOLD_LETTER * len(name) < WIDTH
        down.append(Rule(name, x, x + 4 if fits else x - 4, TOP + 10 + 14 * number, "start" if fits else "end"))
    return Plot(
        chart,
        _thin([Tick(x_of(value), f"{value:g}") for value in x_axis.ticks]),
        [Tick(y_of(value), f"{value:g}") for value in y_axis.ticks],
        chart.x_label + (", log scale" if x_axis.log else ""),
        chart.y_label + (", log scale" if y_axis.log else ""),
        [" ".join(f"{x},{y}" for x, y in line) for line in dots],
        dots,
        [
            [
                (x_of(first), y_of(y), max(round(x_of(last) - x_of(first) - 1, 2), 0.5), round(floor - y_of(y), 2))
                for first, last, y in series.columns
            ]
            for series in chart.columns
        ],
        [place(marks.points) for marks in chart.marks],
        [Rule(name, y_of(value), LEFT + 4, y_of(value) - 4, "start") for name, value in chart.across.items()],
        down,
    )


def _thin(ticks: list[Tick]) -> list[Tick]:
    """Return the ticks, without text where it would overlap the text before."""
    kept: list[Tick] = []
    free_from = -math.inf
    for tick in ticks:
        half = LETTER * len(tick.text) / 2
        fits = tick.at - half >= free_from
        kept.append(tick if fits else Tick(tick.at, ""))
        if fits:
            free_from = tick.at + half + LETTER
    return kept
