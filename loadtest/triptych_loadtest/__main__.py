"""`python -m triptych_loadtest ARGS`: `triptych loadtest ARGS` in a process that imports Locust first."""

import locust  # noqa: F401, I001  # first: it patches the standard library for gevent
import sys

from triptych.cli.app import app
from triptych.cli.console import run


def main() -> None:
    """Run the command line."""
    run(lambda: app(["loadtest", *sys.argv[1:]], prog_name="triptych"))


if __name__ == "__main__":
    main()
