"""Refuse a slower service: exit 1 where the p95 of the second run is longer by more than 5%, and not by chance.

triptych loadtest --images DIR --users 4 --out after.json && python examples/gate.py before.json after.json

`triptych compare before.json after.json --max-p95-regression 5%` does the same on the command line.
"""

import sys
from pathlib import Path

from triptych.measure import comparison, limits, run_file

LIMITS = limits.Limits(latency_percent={"p95": 5})


def main(before: str, after: str) -> None:
    """Print what changed, in a sentence, and exit with what a CI job should end with."""
    runs = run_file.read(Path(before)), run_file.read(Path(after))
    result = comparison.compare_runs(*runs, names=("before", "after"))
    print(result.sentence)
    breaches = [breach.sentence for breach in limits.judge(result, LIMITS) if breach.proven]
    sys.exit("\n".join(breaches) or None)


if __name__ == "__main__":
    main(*sys.argv[1:])
