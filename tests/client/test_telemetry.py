"""ONNX Runtime keeps to itself, whichever of our packages brings it in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import ROOT

LOAD = "import onnxruntime; onnxruntime.InferenceSession({model!r}, providers=['CPUExecutionProvider'])"


@pytest.mark.parametrize(
    "module",
    ["triptych", "triptych.runtimes.onnxruntime", "triptych_build.adapt.probe", "triptych_demo"],
)
def test_onnx_runtime_leaves_nothing_of_its_telemetry(tmp_path: Path, module: str) -> None:
    switches = {"ORT_DISABLE_TELEMETRY", "CI", "GITHUB_ACTIONS", "TF_BUILD", "PYTEST_CURRENT_TEST"}
    kept = {name: value for name, value in os.environ.items() if name not in switches}
    environment = {**kept, "TMPDIR": str(tmp_path), "HOME": str(tmp_path)}
    code = f"import {module}; {LOAD.format(model=str(ROOT / 'demo' / 'pcb.onnx'))}"
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=60)
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == []


def test_who_wants_it_may_have_it() -> None:
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "0"}
    code = "import triptych, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    assert done.stdout == "0\n"
