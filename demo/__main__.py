"""`python demo` is `triptych demo`."""

from triptych.cli.console import run
from triptych_demo.demo import main

if __name__ == "__main__":
    run(main)
