"""A stand-in for `nvidia-cuda-mps-control`: it keeps where it was started and what it was told."""

from __future__ import annotations

from pathlib import Path

import pytest

from triptych.serving import mps

_PROGRAM = """#!/bin/sh
echo "$* $(cat) in $CUDA_MPS_PIPE_DIRECTORY" >> {calls}
[ -d "$CUDA_MPS_PIPE_DIRECTORY" ] && [ -d "$CUDA_MPS_LOG_DIRECTORY" ] || exit 9
[ "$1" = -d ] && touch "$CUDA_MPS_PIPE_DIRECTORY/control"
exit {code}
"""


def install(directory: Path, monkeypatch: pytest.MonkeyPatch, code: int = 0) -> Path:
    """Put the stand-in first in the PATH of a machine without a service; return the file that gets a line a call."""
    calls = directory / "calls"
    program = directory / "bin" / mps.CONTROL
    program.parent.mkdir()
    program.write_text(_PROGRAM.format(calls=calls, code=code))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv(mps.PIPES, raising=False)
    monkeypatch.setattr(mps, "MACHINES_OWN", directory / "nvidia-mps")
    return calls
