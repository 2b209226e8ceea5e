"""`python demo` is `triptych demo`."""

import sys

from triptych.cli.app import main

if __name__ == "__main__":
    sys.argv.insert(1, "demo")
    main()
