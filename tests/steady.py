"""A detector that takes 25 ms sharp, for tests of who waits for whom."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from support import ROOT

SERVICE_MS = 25

_STEADY = """

import time

import numpy as np


def _steady(self, request):
    images = pb_utils.get_input_tensor_by_name(request, "pixels").as_numpy().shape[0]
    time.sleep(0.025)
    return pb_utils.InferenceResponse([pb_utils.Tensor("candidates", np.zeros((images, 300, 6), np.float32))])


TritonPythonModel.respond = _steady
"""


def steady_repository(make_repository: Callable[..., Path]) -> Path:
    """The demo's repository with such a detector."""
    repository = make_repository(ROOT / "build" / "demo" / "pcb.onnx")
    model = repository / "detector" / "1" / "model.py"
    model.write_text(model.read_text() + _STEADY)
    return repository
