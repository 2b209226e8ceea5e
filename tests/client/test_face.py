"""What `import triptych` gives."""

from __future__ import annotations

import logging
import subprocess
import sys

import triptych
from triptych import errors

HEAVY = {
    "faster_coco_eval",
    "jinja2",
    "locust",
    "matplotlib",
    "onnx",
    "onnxruntime",
    "openvino",
    "pyarrow",
    "ray",
    "scipy",
    "supervision",
}
"""Packages that take long to import, and that a client does not need."""


def test_public_names() -> None:
    assert triptych.__all__ == sorted(triptych.__all__)
    assert set(triptych.__all__) == {
        "AsyncDetectionClient",
        "Credentials",
        "Detection",
        "DetectionClient",
        "Detections",
        "DetectorSpec",
        "TritonServer",
        "__version__",
        *errors.__all__,
    }
    assert all(hasattr(triptych, name) for name in triptych.__all__)


def test_the_logger_is_silent_by_default() -> None:
    assert any(isinstance(handler, logging.NullHandler) for handler in logging.getLogger("triptych").handlers)


def test_the_import_is_light() -> None:
    program = "import sys, triptych; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stdout.split())
