"""The suite's command line; see the package."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time

from triptych.machine import available_cores, cpu_model
from truth.claims import LEVEL, SEEDS, Row, broken_claims, table, tally
from truth.suite import EXPERIMENTS


def main() -> int:
    """Try every claim, print how often each held, and return 1 if one held too rarely."""
    commands = sorted({one.command for one in EXPERIMENTS})
    parser = argparse.ArgumentParser(prog="python -m truth", description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS, help="trials of each experiment")
    parser.add_argument("--only", help="the figures of these commands, with commas: " + ", ".join(commands))
    options = parser.parse_args()
    names = options.only.split(",") if options.only else commands
    print(
        f"{cpu_model()}, {available_cores()} cores, load {os.getloadavg()[0]:.1f}; Python {platform.python_version()}; "
        f"{options.seeds} seeds; broken: so few hits would come with a chance below {LEVEL:g}\n"
    )
    rows: list[Row] = []
    for experiment in (one for one in EXPERIMENTS if one.command in names):
        began = time.monotonic()
        rows += tally(experiment, options.seeds)
        print(f"{experiment.name}: {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
    print(table(rows))
    broken = broken_claims(rows)
    print("\n" + ("\n".join(broken) if broken else "every claim held"))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
