"""A detector that takes a fixed time and no CPU, for tests of who waits for whom."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from support import ROOT

SERVICE_MS = 25

_STEADY = """

import time

import numpy as np


def _steady(self, request):
    images = pb_utils.get_input_tensor_by_name(request, "pixels").as_numpy().shape[0]
    time.sleep({service_s})
    return pb_utils.InferenceResponse([pb_utils.Tensor("candidates", np.zeros((images, 300, 6), np.float32))])


TritonPythonModel.respond = _steady
"""


def steady_repository(make_repository: Callable[..., Path], service_ms: float = SERVICE_MS, **how: Any) -> Path:
    """The demo's repository with such a detector; `how` is for `make_repository`."""
    repository = make_repository(ROOT / "build" / "demo" / "pcb.onnx", **how)
    model = repository / "detector" / "1" / "model.py"
    model.write_text(model.read_text() + _STEADY.format(service_s=service_ms / 1000))
    return repository
