"""From a trained detector's ONNX to a version in the model repository: adapt, publish.

python build MODEL.onnx --target openvino
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import adapt
import publish
from triptych.console import run


def main() -> None:
    """Run the whole line."""
    parser = argparse.ArgumentParser(prog="python build", description=__doc__.split("\n", 1)[0])
    parser.add_argument("model", type=Path, help="the detector's ONNX")
    adapt.add_arguments(parser)
    publish.add_arguments(parser)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="triptych-build-") as scratch:
        adapted = Path(scratch) / "adapted.onnx"
        adapt.adapt_file(arguments.model, adapted, adapt.overrides_from(arguments))
        publish.publish_from(arguments, adapted)


if __name__ == "__main__":
    run(main)
