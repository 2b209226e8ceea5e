"""The campaign's command line; see the package."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from fuzz.campaign import Campaign, small_server


def main() -> int:
    """Run a campaign, print what it saw, and return 1 if something failed."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="which damage; the same seed sends the same")
    parser.add_argument("--minutes", type=float, default=30.0, help="when to end at the latest")
    parser.add_argument("--files", type=int, default=400_000, help="damaged files to send")
    parser.add_argument("--requests", type=int, default=10_000, help="malformed requests to send")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"), help="where to keep batches that fail")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, small_server(Path(directory)) as server:
        result = Campaign(server, options.seed, options.keep).run(options.files, options.requests, options.minutes * 60)
    print(f"{result.files.total():,} damaged files: {dict(sorted(result.files.items()))}")
    for answer, count in result.answers.most_common():
        print(f"  {count:,}: {answer}")
    print(f"{result.requests.total():,} malformed requests: {dict(result.requests.most_common())}")
    print(f"the slowest answer to a batch took {result.slowest_s:.2f} s")
    print("\n".join(result.failures) or "nothing failed")
    return 1 if result.failures else 0


if __name__ == "__main__":
    sys.exit(main())
