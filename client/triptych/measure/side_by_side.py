"""Runs side by side: the files of each side read, compared with the first side, and held against limits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from triptych.measure import comparison, documents, limits, remarks, run_file
from triptych.measure.comparison import Comparison
from triptych.measure.limits import Limits
from triptych.measure.pool import Side
from triptych.measure.remarks import Remark


@dataclass(frozen=True)
class SideBySide:
    """What a comparison of several sides showed.

    Attributes:
        sides: all of them, the first one first.
        comparisons: each side but the first with the first.
        remarks: what makes them weak evidence.
    """

    sides: list[Side]
    comparisons: list[Comparison]
    remarks: list[Remark]

    @property
    def refusals(self) -> list[str]:
        """A sentence for each limit that is broken, or not shown to be kept where that is asked for."""
        return [sentence for one in self.comparisons for sentence in one.refusals]

    def to_json(self) -> str:
        """Return the comparisons and the remarks as JSON."""
        comparisons = [comparison.to_json(one) for one in self.comparisons]
        return json.dumps({"comparisons": comparisons, "remarks": documents.to_json(self.remarks)}, indent=1)


def compare_files(paths: Sequence[Sequence[Path]], names: Sequence[str], changed: str, allowed: Limits) -> SideBySide:
    """Compare the runs of each side with the runs of the first.

    Args:
        paths: the files of each side, two sides at least.
        names: what to call each side; without any, it is called after its files.
        changed: the owner that was exchanged.
        allowed: what each comparison may show at worst.

    Raises:
        ContractError: a file cannot be read, or its run cannot be compared with the others.
    """
    sides = [
        Side(name, [run_file.read(path) for path in files], files)
        for name, files in zip(names or _names(paths), paths, strict=True)
    ]
    comparisons = [comparison.compare_sides(sides[0], side, changed) for side in sides[1:]]
    breaches = limits.judge(comparisons, allowed)
    judged = [
        replace(one, refusals=[breach.sentence for breach in broken if breach.refuses])
        for one, broken in zip(comparisons, breaches, strict=True)
    ]
    return SideBySide(sides, judged, [*remarks.of_sides(sides), *remarks.of_breaches(chain(*breaches))])


def _names(paths: Sequence[Sequence[Path]]) -> list[str]:
    """Call each side after its files, or after their whole paths where two sides would be called the same."""
    stems = ["+".join(path.stem for path in side) for side in paths]
    return stems if len(set(stems)) == len(stems) else ["+".join(map(str, side)) for side in paths]
