"""A headless load test: `python loadtest --images DIR --users 4 --duration-s 10 --out RUN.json`."""

import sys

try:
    from triptych_loadtest.__main__ import main
except ModuleNotFoundError as error:
    sys.exit(
        f"error: {error.name} is not installed in {sys.executable}; run `source .venv/bin/activate` after `make demo`, "
        "or `pip install .` here"
    )

if __name__ == "__main__":
    main()
