"""A page as HTML that needs nothing else, and as Markdown for a pull request."""

from __future__ import annotations

import html as escaping
import re
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from triptych.report.blocks import Bar, Bars, Chart, Page, Share
from triptych.report.owners import look
from triptych.report.plot import plot

BAR_LETTERS = 50
"""How long the longest bar is in plain text."""

METER_LETTERS = 10

_LEVELS = "▁▂▃▄▅▆▇█"

_MARKDOWN = re.compile(r"([\\`*_\[\]#~|$])")
"""Letters that Markdown would not show as they are."""


def html(page: Page) -> str:
    """Return the page as HTML: one file, without scripts, that loads nothing."""
    return _HTML.get_template("page.html.jinja").render(page=page)


def markdown(page: Page) -> str:
    """Return the page as GitHub's Markdown, with the pictures drawn in letters."""
    text = _MARKDOWN_PAGES.get_template("page.md.jinja").render(page=page)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _colour(owner: str, owners: list[str]) -> str:
    return look(owner, owners.index(owner))[0]


def _letter(owner: str, owners: list[str]) -> str:
    return look(owner, owners.index(owner))[1]


def _drawn(bars: Bars) -> str:
    """Return bars in letters, a line each, and what the letters stand for."""
    wide = max((len(bar.label) for bar in bars.bars), default=0)
    lines = [f"{bar.label:<{wide}} {_text_bar(bar, bars):<{BAR_LETTERS}} {bar.total_ms:8.1f} ms" for bar in bars.bars]
    legend = ["", *(f"{_letter(owner, bars.owners())} {owner}" for owner in bars.owners())]
    return "\n".join([*lines, *(legend if bars.legend else ())])


def _text_bar(bar: Bar, bars: Bars) -> str:
    """Return a bar in letters; each segment ends at a whole letter, so that no rounding adds up."""
    length = round(BAR_LETTERS * bar.percent / 100)
    text, end = "", 0.0
    for segment in bar.segments:
        end += segment.percent / 100 * length
        text += _letter(segment.owner, bars.owners()) * (round(end) - len(text))
    return text


def meter(share: Share) -> str:
    """Return a share as a bar in letters."""
    return "█" * round(METER_LETTERS * min(max(share.value, 0.0), 1.0))


def _sparks(chart: Chart) -> str:
    """Return the course of each series of a chart in letters, with its smallest and its largest value."""
    series = [(line.name, [y for _, y in line.points]) for line in chart.lines]
    series += [(columns.name, [y for *_, y in columns.columns]) for columns in chart.columns]
    wide = max((len(name) for name, _ in series), default=0)
    return "\n".join(
        f"{name:<{wide}} {_spark(values)} {min(values):.4g} to {max(values):.4g} {chart.y_label}"
        for name, values in series
        if values
    )


def _spark(values: list[float]) -> str:
    top = max(values)
    return "".join(_LEVELS[min(int(value / top * len(_LEVELS)), 7) if top > 0 else 0] for value in values)


def _escape_markdown(value: Any) -> Any:
    """Return text as Markdown shows it; what the template itself made stays."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return Markup(_MARKDOWN.sub(r"\\\1", escaping.escape(" ".join(value.split()), quote=False)))  # noqa: S704


def _fenced(text: str) -> Markup:
    """Return text as a block of code, with a fence that is longer than any in it."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return Markup("\n".join((fence, text, fence)))  # noqa: S704


def _environment(**options: Any) -> Environment:
    environment = Environment(  # noqa: S701  # HTML is escaped by `autoescape`, Markdown by `finalize`
        loader=PackageLoader("triptych", "report"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        **options,
    )
    environment.tests["share"] = lambda cell: isinstance(cell, Share)
    environment.filters |= {
        "colour": _colour,
        "plot": plot,
        "drawn": _drawn,
        "meter": meter,
        "sparks": _sparks,
        "fenced": _fenced,
    }
    return environment


_HTML = _environment(autoescape=True)
_MARKDOWN_PAGES = _environment(autoescape=False, finalize=_escape_markdown)
