"""What this machine has: CPU cores and GPUs."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

import pynvml


@dataclass(frozen=True)
class Gpu:
    """A GPU; a property that is not known is empty.

    Attributes:
        compute_capability: such as "9.0".
        driver: such as "580.65.06".
    """

    name: str
    compute_capability: str = ""
    driver: str = ""


def available_cores() -> int:
    """Return how many CPU cores this process may use: its affinity, and the quota of its container (cgroup v2)."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            cores = min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass  # without cgroup v2 there is no quota that we could read
    return cores


def cpu_model() -> str:
    """Return the CPU's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def cpu_features() -> str:
    """Return what the CPU can do, as Linux lists it: two of one name may have other instructions."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(("flags", "Features"))), "")


def has_exact_int8() -> bool:
    """Return whether the CPU multiplies int8 into sums of 32 bits: VNNI, AMX, or no x86.

    Older x86 has an instruction that adds two products in 16 bits, which saturate.
    """
    features = cpu_features().split()
    return "sse2" not in features or not {"avx512_vnni", "avx_vnni", "amx_int8"}.isdisjoint(features)


def nvidia_gpus() -> tuple[Gpu, ...]:
    """Return the GPUs that the NVIDIA driver lists; none where there is no driver, or it fails."""
    # Opened and closed in each call: a process that forks later must not inherit an open library.
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        driver = str(pynvml.nvmlSystemGetDriverVersion())
        return tuple(_gpu(index, driver) for index in range(pynvml.nvmlDeviceGetCount()))
    except pynvml.NVMLError:
        return ()
    finally:
        pynvml.nvmlShutdown()


def _gpu(index: int, driver: str) -> Gpu:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    return Gpu(str(pynvml.nvmlDeviceGetName(handle)), f"{major}.{minor}", driver)
