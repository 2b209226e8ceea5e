"""`python build ARGS` is `triptych build ARGS`."""

import sys

from triptych.cli.app import main

if __name__ == "__main__":
    sys.argv[1:1] = ["build"]
    main()
