"""A headless load test: `python loadtest --images DIR --users 4 --duration 10 --out RUN.json`."""

import locust  # noqa: F401, I001  # first: it patches the standard library for gevent
from triptych.cli.console import run
from triptych_loadtest.main import main

if __name__ == "__main__":
    run(main)
