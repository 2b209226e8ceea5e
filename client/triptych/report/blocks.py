"""What a report is made of, before it becomes HTML or Markdown: sections of sentences, tables, bars and charts.

Everything here is plain text; the templates escape it, each in its own way.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal


@dataclass(frozen=True)
class Share:
    """A cell that shows its share of a whole, 0..1, as a picture too."""

    value: float


Cell = str | Share


@dataclass(frozen=True)
class Row:
    """A row of a table; a `part` belongs to the row above it, a `total` is the sum of the others."""

    cells: list[Cell]
    kind: Literal["", "part", "total"] = ""


@dataclass(frozen=True)
class Table:
    """A table; its first `words` columns hold words, the others figures. Without columns' names it has no head."""

    kind: ClassVar[str] = "table"
    columns: list[str]
    rows: list[Row]
    words: int = 1


@dataclass(frozen=True)
class Note:
    """A sentence; `level` says how it is meant."""

    kind: ClassVar[str] = "note"
    text: str
    level: Literal["plain", "small", "good", "warning", "bad"] = "plain"


@dataclass(frozen=True)
class Code:
    """Something to type."""

    kind: ClassVar[str] = "code"
    text: str


@dataclass(frozen=True)
class Figure:
    """A figure that is seen first: its value, its unit unless the name says it, and its name."""

    value: str
    unit: str
    name: str


@dataclass(frozen=True)
class Figures:
    """Several of them, in a row."""

    kind: ClassVar[str] = "figures"
    figures: list[Figure]


@dataclass(frozen=True)
class Piece:
    """One part of a segment, and its percent of the segment."""

    name: str
    ms: float
    percent: float


@dataclass(frozen=True)
class Segment:
    """One owner's part of a bar, its percent of the bar, and its own parts, if they are known."""

    owner: str
    ms: float
    percent: float
    pieces: list[Piece] = field(default_factory=list)


@dataclass(frozen=True)
class Bar:
    """A latency and its owners; `percent` is its length against the longest bar next to it."""

    label: str
    total_ms: float
    percent: float
    segments: list[Segment]


@dataclass(frozen=True)
class Bars:
    """Bars on one scale.

    Attributes:
        bars: from top to bottom.
        stretched: whether each is shown as 100% at first.
        legend: whether it says what the colours mean, and lets a reader stretch them. If not, the bars above do.
    """

    kind: ClassVar[str] = "bars"
    bars: list[Bar]
    stretched: bool = False
    legend: bool = True

    def owners(self) -> list[str]:
        """Return the owners of all segments, each once."""
        return list(dict.fromkeys(segment.owner for bar in self.bars for segment in bar.segments))

    def pieces(self) -> list[str]:
        """Return the names of all parts of segments, each once."""
        names = (piece.name for bar in self.bars for segment in bar.segments for piece in segment.pieces)
        return list(dict.fromkeys(names))


@dataclass(frozen=True)
class Line:
    """A curve through (x, y) points."""

    name: str
    points: list[tuple[float, float]]


@dataclass(frozen=True)
class Columns:
    """Columns from x to x, of height y."""

    name: str
    columns: list[tuple[float, float, float]]


@dataclass(frozen=True)
class Marks:
    """Points to look at."""

    name: str
    points: list[tuple[float, float]]


@dataclass(frozen=True)
class Chart:
    """A chart with two axes, which are logarithmic where the values need it and `log_x`, `log_y` allow it.

    Attributes:
        title: what it shows.
        x_label: with the unit.
        y_label: with the unit.
        lines: curves.
        columns: columns; they stand on zero.
        marks: points of the curves.
        across: levels, by name.
        down: places on the x axis, by name.
        log_x: whether the x axis may be logarithmic.
        log_y: whether the y axis may be logarithmic.
        zero_x: whether the x axis begins at zero, unless it is logarithmic.
    """

    kind: ClassVar[str] = "chart"
    title: str
    x_label: str
    y_label: str
    lines: list[Line] = field(default_factory=list)
    columns: list[Columns] = field(default_factory=list)
    marks: list[Marks] = field(default_factory=list)
    across: dict[str, float] = field(default_factory=dict)
    down: dict[str, float] = field(default_factory=dict)
    log_x: bool = False
    log_y: bool = False
    zero_x: bool = True


@dataclass(frozen=True)
class Charts:
    """Charts side by side, where there is room."""

    kind: ClassVar[str] = "charts"
    charts: list[Chart]


Block = Table | Note | Code | Figures | Bars | Charts


@dataclass(frozen=True)
class Section:
    """Blocks under a heading.

    Attributes:
        title: the heading; empty for none.
        blocks: what stands under it.
        level: 3 belongs to the section of level 2 before it.
        folded: whether Markdown, which stands between other texts, shows it only on demand.
    """

    title: str
    blocks: list[Block]
    level: Literal[2, 3] = 2
    folded: bool = False


@dataclass(frozen=True)
class Page:
    """A report.

    Attributes:
        title: what it is about.
        subtitle: what was measured, and when.
        headline: its result, in one sentence.
        sections: the rest.
    """

    title: str
    subtitle: str
    headline: str
    sections: list[Section]
