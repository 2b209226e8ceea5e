"""What this machine gives us."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

SMI = ("nvidia-smi", "--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader")


@dataclass(frozen=True)
class Gpu:
    """A GPU; what is not known of it is empty.

    Attributes:
        compute_capability: such as "9.0".
        driver: such as "580.65.06".
    """

    name: str
    compute_capability: str = ""
    driver: str = ""


def available_cores() -> int:
    """The CPU cores that this process may use: its affinity, and the quota of its container (cgroup v2)."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            cores = min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass  # no cgroup v2, hence no quota that we could read
    return cores


def cpu_model() -> str:
    """What the CPU is called."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def nvidia_gpus(timeout_s: float = 20.0) -> tuple[Gpu, ...]:
    """The GPUs that `nvidia-smi` shows; none where it is not there, fails or takes too long."""
    try:
        done = subprocess.run(SMI, capture_output=True, text=True, timeout=timeout_s, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return parse_gpus(done.stdout)


def parse_gpus(table: str) -> tuple[Gpu, ...]:
    """GPUs as `SMI` prints them, a line each.

    >>> parse_gpus("NVIDIA H200, 9.0, 580.65.06")
    (Gpu(name='NVIDIA H200', compute_capability='9.0', driver='580.65.06'),)
    """
    rows = ([cell.strip() for cell in line.rsplit(",", 2)] for line in table.splitlines())
    return tuple(Gpu(*row) for row in rows if len(row) == 3 and row[1].split(".")[0].isdigit())
