"""NVIDIA's Multi-Process Service (MPS): the processes that share a GPU use it at the same time.

Without it a GPU serves one process after the other, each for a slice of its time. Preprocess that decodes there and the
detector are several processes with little work at a time, so most of what they wait for is their turn.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

CONTROL = "nvidia-cuda-mps-control"
"""The program that starts the service and ends it; NVIDIA's driver has it."""

PIPES, LOGS = "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"
"""The variables that say where CUDA looks for the service, and where that logs."""

MACHINES_OWN = Path("/tmp/nvidia-mps")  # noqa: S108  (NVIDIA's choice)
"""Where CUDA looks by default."""

WITHIN_S = 10.0


def start_mps(scratch: Path) -> str:
    """Start the service for one server, in its temporary directory, if nobody has started one for the machine.

    Returns:
        How the server's processes share a GPU, in a few words.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if PIPES in os.environ:
        return f"as {PIPES} says"
    if (MACHINES_OWN / "control").exists():
        return "the machine's own"
    if shutil.which(CONTROL) is None:
        return f"none, so that processes wait for their turn on the GPU: there is no {CONTROL}"
    # The service numbers the GPUs that it sees anew, and its clients choose among these.
    if not _is_a_beginning(visible):
        return f"none: it numbers GPUs anew, which CUDA_VISIBLE_DEVICES={visible} does not allow for; start it yourself"
    for directory in _directories(scratch):
        directory.mkdir()
    if failure := _control(scratch, "-d"):
        shutil.rmtree(_directories(scratch)[0])
        return f"none: {CONTROL} {failure}"
    return "started for this server"


def mps_environment(scratch: Path) -> Mapping[str, str]:
    """Return the variables with which a server's processes find the service that was started for it, if one was."""
    pipes, logs = _directories(scratch)
    return {PIPES: str(pipes), LOGS: str(logs)} if pipes.is_dir() else {}


def stop_mps(scratch: Path) -> None:
    """End the service that was started for a server, if one was. The server's processes are gone by then."""
    if mps_environment(scratch):
        _control(scratch, orders="quit\n")


def _directories(scratch: Path) -> tuple[Path, Path]:
    return scratch / "mps", scratch / "mps-log"


def _is_a_beginning(visible: str) -> bool:
    """Return whether a value of CUDA_VISIBLE_DEVICES names the first GPUs in their order, or none at all."""
    numbers = re.findall(r"\d+", visible)
    return not visible or visible == ",".join(numbers) == ",".join(map(str, range(len(numbers))))


def _control(scratch: Path, *options: str, orders: str = "") -> str:
    """Run the program with orders on standard input; return what went wrong, or nothing."""
    try:
        done = subprocess.run(
            [CONTROL, *options],
            input=orders,
            env={**os.environ, **mps_environment(scratch)},
            # The service keeps what it inherits, so no pipe to us.
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            timeout=WITHIN_S,
            check=False,
            start_new_session=True,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"does not answer ({error})"
    return f"ended with code {done.returncode}" if done.returncode else ""
