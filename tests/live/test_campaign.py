"""The short form of the fault campaign; `PYTHONPATH=tests python -m faults` runs the long form."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from support import ROOT

pytestmark = [pytest.mark.triton, pytest.mark.slow]


@pytest.mark.timeout(400)
def test_every_fault_holds() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    command = [sys.executable, "-m", "faults", "--short"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "left behind: nothing" in done.stdout
