"""What this machine has: CPU cores and GPUs."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    """Return the GPUs that CUDA shows to this process, in NVML's order or that of CUDA_VISIBLE_DEVICES.

    None where there is no NVIDIA driver, or it fails. All where CUDA_VISIBLE_DEVICES has numbers of unlike GPUs.
    """
    # Opened and closed in each call: a process that forks later must not inherit an open library.
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        driver = str(pynvml.nvmlSystemGetDriverVersion())
        handles = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
        gpus = {str(pynvml.nvmlDeviceGetUUID(handle)): _gpu(handle, driver) for handle in handles}
        visible = visible_gpus({uuid: gpu.name for uuid, gpu in gpus.items()}, os.environ)
        return tuple(gpus[uuid] for uuid in (gpus if visible is None else visible))
    except pynvml.NVMLError:
        return ()
    finally:
        pynvml.nvmlShutdown()


def _gpu(handle: Any, driver: str) -> Gpu:
    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    return Gpu(str(pynvml.nvmlDeviceGetName(handle)), f"{major}.{minor}", driver)


def visible_gpus(names: Mapping[str, str], environment: Mapping[str, str]) -> list[str] | None:
    """Return the UUIDs that CUDA_VISIBLE_DEVICES names, in its order; None if it is not set, or names nothing certain.

    By default CUDA numbers unlike GPUs from the fastest, which NVML does not tell.

    Args:
        names: of this machine's GPUs, by UUID, in NVML's order. The library must be open.
        environment: the variables of the process.
    """
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    in_order = environment.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID" or len(set(names.values())) <= 1
    if visible is None or (not in_order and re.search(r"(^|,)\s*\d", visible)):
        return None
    return list(dict.fromkeys(_named(visible, list(names))))


def _named(visible: str, uuids: Sequence[str]) -> Iterator[str]:
    """Give the UUIDs that a value of CUDA_VISIBLE_DEVICES names; as for CUDA, what is no GPU ends the list."""
    for entry in map(str.strip, visible.split(",")):
        if entry.isdigit() and int(entry) < len(uuids):
            yield uuids[int(entry)]
            continue
        board = _board(entry) if entry.startswith("MIG-") else entry
        found = [uuid for uuid in uuids if board.startswith("GPU-") and uuid.startswith(board)]
        if len(found) != 1:
            return
        yield found[0]


def _board(mig_uuid: str) -> str:
    """Return the UUID of the GPU that a MIG instance is part of; empty if there is none."""
    try:
        handle = pynvml.nvmlDeviceGetHandleByUUID(mig_uuid)
        return str(pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)))
    except pynvml.NVMLError:
        return ""
