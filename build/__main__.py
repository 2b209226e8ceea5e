"""`python build MODEL.onnx` is `triptych build MODEL.onnx`."""

from triptych.cli.console import run
from triptych_build.line import main

if __name__ == "__main__":
    run(main)
