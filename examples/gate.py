"""Refuse a slower service: exit 1 where the p95 of the second side is longer by more than 5%, and not by chance.

Measure four runs of each side or more, in turn: before1, after1, before2, after2, and so on.

python examples/gate.py before1.json,before2.json,before3.json,before4.json after1.json,after2.json,…

`triptych compare BEFORE AFTER --max-p95-regression 5%` does the same on the command line.
"""

import sys
from pathlib import Path

from triptych.measure.limits import Limits
from triptych.measure.side_by_side import compare_files

LIMITS = Limits(latency_percent={"p95": 5})


def main(*sides: str) -> None:
    """Print what changed, in a sentence, and exit with what a CI job should end with."""
    paths = [[Path(path) for path in side.split(",")] for side in sides]
    result = compare_files(paths, ["before", "after"], "detector", LIMITS)
    print(result.comparisons[0].sentence)
    sys.exit("\n".join(result.refusals) or None)


if __name__ == "__main__":
    main(*sys.argv[1:])
