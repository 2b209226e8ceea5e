"""A stand-in for NVIDIA's driver library: GPUs whose power, clocks and processes are planted."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml


@dataclass
class FakeGpu:
    """A GPU that takes the same power all the time; what is None it does not say."""

    uuid: str
    name: str = "NVIDIA H100 80GB HBM3"
    watts: float = 400.0
    limit_w: float | None = 700.0
    pids: Sequence[int] = ()
    bits: int = 0
    mig: bool = False
    energy: bool = True
    before_j: float = 5e6
    began_s: float = field(default_factory=time.monotonic)


class FakeNvml:
    """What we call of `pynvml`, with its names and its errors; `old` is a driver from before 535."""

    NVMLError = pynvml.NVMLError
    NVML_CLOCK_SM = pynvml.NVML_CLOCK_SM
    NVML_CLOCK_MEM = pynvml.NVML_CLOCK_MEM
    NVML_TEMPERATURE_GPU = pynvml.NVML_TEMPERATURE_GPU

    def __init__(self, *gpus: FakeGpu, mig: dict[str, str] | None = None, old: bool = False) -> None:
        self.gpus, self.mig, self.old = gpus, mig or {}, old
        self.open = 0

    def nvmlInit(self) -> None:  # noqa: N802
        if not self.gpus:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeGpu:  # noqa: N802
        return self.gpus[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        if uuid not in self.mig:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return self.mig[uuid]

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, migDeviceHandle: str) -> FakeGpu:  # noqa: N802, N803
        return next(gpu for gpu in self.gpus if gpu.uuid == migDeviceHandle)

    def nvmlDeviceGetName(self, handle: FakeGpu) -> str:  # noqa: N802
        return handle.name

    def nvmlDeviceGetUUID(self, handle: FakeGpu) -> str:  # noqa: N802
        return handle.uuid

    def nvmlDeviceGetComputeRunningProcesses(self, handle: FakeGpu) -> list[Any]:  # noqa: N802
        return [SimpleNamespace(pid=pid, usedGpuMemory=10**9) for pid in handle.pids]

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: FakeGpu) -> int:  # noqa: N802
        return int(1000 * _known(handle.limit_w))

    def nvmlDeviceGetMigMode(self, device: FakeGpu) -> list[int]:  # noqa: N802
        return [int(device.mig)] * 2

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: FakeGpu) -> int:  # noqa: N802
        joules = handle.before_j + handle.watts * (time.monotonic() - handle.began_s)
        return int(1000 * _known(joules if handle.energy else None))

    def nvmlDeviceGetPowerUsage(self, handle: FakeGpu) -> int:  # noqa: N802
        return int(1000 * handle.watts)

    def nvmlDeviceGetUtilizationRates(self, handle: FakeGpu) -> Any:  # noqa: N802
        _known(None if handle.mig else 1.0)
        return SimpleNamespace(gpu=83, memory=40)

    def nvmlDeviceGetMemoryInfo(self, handle: FakeGpu) -> Any:  # noqa: N802
        return SimpleNamespace(total=80 * 10**9, free=60 * 10**9, used=20 * 10**9)

    def nvmlDeviceGetClockInfo(self, handle: FakeGpu, type: int) -> int:  # noqa: N802, A002
        return 1980 if type == pynvml.NVML_CLOCK_SM else 2619

    def nvmlDeviceGetTemperature(self, handle: FakeGpu, sensor: int) -> int:  # noqa: N802
        return 61

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: FakeGpu) -> int:  # noqa: N802
        if self.old:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
        return handle.bits

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: FakeGpu) -> int:  # noqa: N802
        return handle.bits


def _known(value: float | None) -> float:
    if value is None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
    return value
