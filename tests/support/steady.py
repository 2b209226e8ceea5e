"""Detectors that take a fixed time and no CPU, stages whose delay a test plants, and machines that are not steady."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support import ROOT
from triptych.serving.server import TritonServer

SERVICE_MS = 25

_STEADY = """

import time

import numpy as np


def _steady(self, request):
    images = pb_utils.get_input_tensor_by_name(request, "pixels").as_numpy().shape[0]
    time.sleep({service_s})
    candidates = stamp(np.zeros((images, 300, 6), np.float32), self.names)
    return pb_utils.InferenceResponse([pb_utils.Tensor("candidates", candidates)])


TritonPythonModel.respond = _steady
"""


def steady_repository(make_repository: Callable[..., Path], service_ms: float = SERVICE_MS, **how: Any) -> Path:
    """Return the demo's repository with a detector that takes `service_ms`; `how` is for `make_repository`."""
    repository = make_repository(ROOT / "demo" / "pcb.onnx", **how)
    model = repository / "detector" / "1" / "model.py"
    model.write_text(model.read_text() + _STEADY.format(service_s=service_ms / 1000))
    return repository


_LATE = """

import time
from pathlib import Path

_on_time = TritonPythonModel.respond
_requests = 0


def _late(self, request):
    global _requests
    _requests += 1
    every, seconds = (Path(__file__).parent / "late").read_text().split()
    due = time.perf_counter() + float(seconds) * (_requests % int(every) == 0)
    time.sleep(max(0.0, due - time.perf_counter() - 0.001))
    while time.perf_counter() < due:
        pass  # a sleep alone ends late by what the scheduler likes
    return _on_time(self, request)


TritonPythonModel.respond = _late
"""

_STEADY_OR_STALLED = """

import time
from pathlib import Path

import numpy as np

_detect = TritonPythonModel.respond


def _steady(self, request):
    here = Path(__file__).parent
    while (here / "stalled").exists():
        time.sleep(0.01)
    if not (here / "steady").exists():
        return _detect(self, request)
    images = pb_utils.get_input_tensor_by_name(request, "pixels").as_numpy().shape[0]
    time.sleep({service_s})
    candidates = stamp(np.zeros((images, 300, 6), np.float32), self.names)
    return pb_utils.InferenceResponse([pb_utils.Tensor("candidates", candidates)])


TritonPythonModel.respond = _steady
"""


def plant_switches(model: Path) -> None:
    """Have a detector be steady or stand still for as long as files say, `steady` and `stalled` beside its model.py."""
    model.write_text(model.read_text() + _STEADY_OR_STALLED.format(service_s=SERVICE_MS / 1000))


def planted_repository(make_repository: Callable[..., Path]) -> Path:
    """Return the demo's repository, whose postprocess and detector are as slow as `Planted` says."""
    repository = make_repository(ROOT / "demo" / "pcb.onnx")
    late = repository / "postprocess" / "1" / "model.py"
    late.write_text(late.read_text() + _LATE)
    plant_switches(repository / "detector" / "1" / "model.py")
    (repository / "postprocess" / "1" / "late").write_text("1 0")
    (repository / "detector" / "1" / "steady").touch()
    return repository


@dataclass
class Planted:
    """A server of such a repository: where it is slow, and by how much."""

    server: TritonServer
    repository: Path

    def reset(self) -> None:
        """Take 25 ms in the detector, and plant no delay."""
        self.be_late(0)
        self.be_steady(True)
        self.stall(False)

    def be_late(self, milliseconds: float, every: int = 1) -> None:
        """Have postprocess take so much longer, for one request of so many."""
        (self.repository / "postprocess" / "1" / "late").write_text(f"{every} {milliseconds / 1000}")

    def be_steady(self, steady: bool) -> None:
        """Have the detector take 25 ms and no CPU; else it detects."""
        self._switch("steady", steady)

    def stall(self, stalled: bool) -> None:
        """Have the detector stand still until it is switched back.

        In the model and not with SIGSTOP, which Triton 2.51 does not survive if a lock is held at that moment.
        """
        self._switch("stalled", stalled)

    def _switch(self, name: str, on: bool) -> None:
        file = self.repository / "detector" / "1" / name
        if on:
            file.touch()
        else:
            file.unlink(missing_ok=True)


ATTEMPTS = 3

LATE_MS = 0.5
"""Nobody can measure milliseconds on a machine that ends a tenth of its sleeps so much late."""


def lateness_ms() -> float:
    """Return by how many milliseconds this machine ends a tenth of its sleeps late at the moment."""
    late = []
    for _ in range(50):
        began = time.perf_counter()
        time.sleep(0.02)
        late.append((time.perf_counter() - began) * 1000 - 20)
    return float(np.percentile(late, 90))


def measured_in_peace(check: Callable[[], None]) -> None:
    """Have `check` measure and assert, and again where it fails: whatever else the machine does is measured too.

    The test fails if the check failed while the machine was quiet. It is skipped if the check only failed while not
    even a sleep ended in time, as where a virtual machine's neighbours take its cores.
    """
    failures, quiet = [], False
    for _ in range(ATTEMPTS):
        before = lateness_ms()
        try:
            return check()
        except AssertionError as error:
            late_ms = max(before, lateness_ms())
            quiet |= late_ms < LATE_MS
            failures.append(f"{error} (sleeps ended {late_ms:.1f} ms late)")
    if not quiet:
        pytest.skip(f"this machine is not steady enough at the moment: {'; '.join(failures)}")
    pytest.fail("; ".join(failures))
