"""Refuse a slower service: exit 1 where the p95 of the second run is longer by more than 5%, and not by chance.

triptych loadtest --images DIR --users 4 --out after.json && python examples/gate.py before.json after.json

`triptych compare before.json after.json --max-p95-regression 5%` does the same on the command line.
"""

import sys
from pathlib import Path

from triptych.measure import comparison, run_file

LIMIT_PERCENT = 5.0


def main(before: str, after: str) -> None:
    """Print what changed, in a sentence, and exit with what a CI job should end with."""
    result = comparison.compare(run_file.read(Path(before)), run_file.read(Path(after)), names=("before", "after"))
    print(result.sentence)
    p95 = result.latency["p95"]  # the time before over the time after: below 1, the service became slower
    longer_percent = 100 * (1 / p95.value - 1)
    if longer_percent > LIMIT_PERCENT and p95.significant:
        sys.exit(
            f"the p95 is {longer_percent:.0f}% longer: {result.a_ms['p95']:.1f} ms, then {result.b_ms['p95']:.1f} ms"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
