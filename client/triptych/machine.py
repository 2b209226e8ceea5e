"""What this machine gives us."""

from __future__ import annotations

import os
from pathlib import Path


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
