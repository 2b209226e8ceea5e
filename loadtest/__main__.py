"""`python loadtest ARGS` is `triptych loadtest ARGS`."""

import sys

try:
    from triptych.cli.app import main
except ModuleNotFoundError as error:
    sys.exit(
        f"error: {error.name} is not installed in {sys.executable}; run `source .venv/bin/activate` after `make demo`, "
        "or `pip install .` here"
    )

if __name__ == "__main__":
    sys.argv.insert(1, "loadtest")
    main()
