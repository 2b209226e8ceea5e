"""Owners as stacked bars, and the colours and letters that stand for each."""

from __future__ import annotations

from collections.abc import Mapping

from triptych.measure.attribution import LATENESS, NETWORK, OVERHEAD, Breakdown
from triptych.report.blocks import Bar, Bars, Piece, Segment

COLOURS = {
    "preprocess": ("#56b4e9", "▒"),
    "detector": ("#d55e00", "█"),
    "postprocess": ("#009e73", "▓"),
    OVERHEAD: ("#8c8c8c", "·"),
    NETWORK: ("#cc79a7", "░"),
    LATENESS: ("#8f6b32", "l"),
    "read": ("#e69f00", "r"),
    "encode": ("#f0e442", "e"),
    "wait": ("#b8bcc2", "-"),
    "track": ("#9d7fe0", "t"),
    "write": ("#b58a5a", "w"),
    # Of a service against a loop; what is a stage's work has the stage's colour.
    "decoding": ("#56b4e9", "▒"),
    "inference": ("#d55e00", "█"),
    "suppression": ("#009e73", "▓"),
    "transport": ("#cc79a7", "░"),
    "threads": ("#9d7fe0", "h"),
    "copies": ("#e69f00", "c"),
    "queue": ("#b8bcc2", "q"),
    "client": ("#f0e442", "k"),
    "rest": ("#b58a5a", "*"),
    # Of layers.
    "int8": ("#009e73", "▓"),
    "fp16": ("#56b4e9", "▒"),
    "bf16": ("#9d7fe0", "b"),
    "fp32": ("#d55e00", "█"),
    "reformats": ("#e69f00", "r"),
}
"""By owner: a colour, and the letter it is drawn with in plain text. The colours can be told apart without red and
green, and dark letters can be read on them (after Okabe and Ito, Color Universal Design, 2008)."""

OTHERS = (("#a3c644", "o"), ("#e58ec9", "x"), ("#6fd0c8", "+"))
"""For other owners, in turn."""


def look(owner: str, number: int) -> tuple[str, str]:
    """Return colour and letter of an owner, the `number`th in its picture."""
    return COLOURS.get(owner, OTHERS[number % len(OTHERS)])


def bars(breakdowns: Mapping[str, Breakdown]) -> Bars:
    """Return a bar for each breakdown, by its label, all on one scale.

    An owner below zero (see `Window.ensemble_overhead_ms`) has no width; the widths of a bar add up to 100%.
    """
    return stacked(
        {label: breakdown.owners() for label, breakdown in breakdowns.items()},
        {label: breakdown.total_ms for label, breakdown in breakdowns.items()},
        {label: breakdown.stages for label, breakdown in breakdowns.items()},
    )


def stacked(
    owners_ms: Mapping[str, Mapping[str, float]],
    totals_ms: Mapping[str, float],
    parts_ms: Mapping[str, Mapping[str, Mapping[str, float]]] | None = None,
) -> Bars:
    """Return a bar for each label, all on one scale.

    Args:
        owners_ms: by label, then owner.
        totals_ms: by label.
        parts_ms: by label, owner and part, for owners whose parts are known.
    """
    longest = max(totals_ms.values(), default=0.0)
    return Bars(
        [
            Bar(
                label,
                totals_ms[label],
                100 * totals_ms[label] / longest if longest > 0 else 0.0,
                _segments(owners, (parts_ms or {}).get(label, {})),
            )
            for label, owners in owners_ms.items()
        ]
    )


def _segments(owners_ms: Mapping[str, float], parts_ms: Mapping[str, Mapping[str, float]]) -> list[Segment]:
    return [
        Segment(
            owner,
            owners_ms[owner],
            percent,
            [Piece(part, parts_ms[owner][part], share) for part, share in _percents(parts_ms.get(owner, {})).items()],
        )
        for owner, percent in _percents(owners_ms).items()
    ]


def _percents(values: Mapping[str, float]) -> dict[str, float]:
    """Return each value's percent of all, without values that have no length."""
    long = {name: value for name, value in values.items() if value > 0}
    total = sum(long.values())
    return {name: 100 * value / total for name, value in long.items()}
