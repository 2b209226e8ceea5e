"""`python -m triptych` is the same as `triptych`."""

from triptych.cli.app import main

main()
