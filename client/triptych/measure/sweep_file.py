"""The sweep file: several load tests of one server, and what they show together, as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from triptych.measure.documents import Format
from triptych.measure.run_file import Environment, ImageSet
from triptych.measure.sweep import Percentile, Series

VERSION: Final = 1


@dataclass(frozen=True)
class Sweep:
    """Several load tests of one server.

    Attributes:
        started: when the first measurement began, UTC, ISO 8601.
        environment: where; the detector as it was served before the sweep.
        images: what was sent.
        budget_ms: what an answer may take; None for no budget.
        budget_at: the percentile that the budget holds for.
        series: for each setting of the server.
        sentences: what they show.
        command: what was typed.
        version: of this format.
        max_dropped: the share of their frames that cameras may drop, 0..1; None where there are no cameras.
    """

    started: str
    environment: Environment
    images: ImageSet
    budget_ms: float | None
    budget_at: Percentile
    series: list[Series]
    sentences: list[str]
    command: list[str]
    version: Literal[1] = VERSION
    max_dropped: float | None = None


def _upgrade(data: dict[str, Any]) -> dict[str, Any]:
    """Give the points of older sweeps the images in a request, which only the command line had."""
    command, series = data.get("command"), data.get("series")
    if not isinstance(command, list) or not isinstance(series, list):
        return data  # which is then refused
    words = [part for word in command for part in str(word).split("=", 1)]
    if "--batch" not in words[:-1]:
        return data
    batch = int(words[words.index("--batch") + 1])
    upgraded = [{**one, "points": [{"batch": batch, **point} for point in one["points"]]} for one in series]
    return {**data, "series": upgraded}


FORMAT = Format("sweep", Sweep, VERSION, mark="series", upgrade=_upgrade)

read, write = FORMAT.read, FORMAT.write
