"""GPUs of this machine, by NVIDIA's driver (NVML)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import pynvml

from triptych.machine import visible_gpus
from triptych.measure.power.figures import Gauges, Identity
from triptych.measure.power.source import Reading

THROTTLES = {
    pynvml.nvmlClocksEventReasonSwPowerCap: "power cap",
    pynvml.nvmlClocksEventReasonHwSlowdown: "hardware slowdown",
    pynvml.nvmlClocksEventReasonSwThermalSlowdown: "temperature",
    pynvml.nvmlClocksEventReasonHwThermalSlowdown: "temperature, by hardware",
    pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown: "power brake",
}
"""What holds clocks down against everybody's will. An idle GPU, or clocks that somebody set, are no such thing."""


@contextlib.contextmanager
def open_devices() -> Iterator[dict[tuple[int, str], Any]]:
    """Give NVML's handles by number and name; none where there is no driver, or it fails."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield {}
        return
    try:
        devices = {}
        with contextlib.suppress(pynvml.NVMLError):
            for index in range(pynvml.nvmlDeviceGetCount()):
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                devices[index, str(pynvml.nvmlDeviceGetName(handle))] = handle
        yield devices
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


class Nvml:
    """The GPUs of a server on this machine.

    Those that its processes have opened, as the driver says. In a container the driver may not know their numbers:
    then those that the server's CUDA_VISIBLE_DEVICES names, and without it all.
    """

    period_s = 0.1

    def __init__(self, pids: Collection[int], environment: Mapping[str, str]) -> None:
        """Find the GPUs of a server by its processes and the environment that it was started with."""
        self._opened = contextlib.ExitStack()
        devices = self._opened.enter_context(open_devices())
        own, how = devices_of(devices, pids, environment)
        self._handles = {uuid: devices[device] for device, uuid in own.items()}
        self.identities = {uuid: _identity(uuid, name, self._handles[uuid], how) for (_, name), uuid in own.items()}
        self.missing = "" if own else "NVIDIA's driver on this machine shows no GPU of the server"

    def read(self) -> Mapping[str, Reading]:
        """Read all GPUs."""
        return {uuid: _reading(handle) for uuid, handle in self._handles.items()}

    def objection(self, answered: int) -> str:  # noqa: ARG002  # whoever uses it, it is this machine's
        """Object to nothing."""
        return ""

    def close(self) -> None:
        """Close the driver's library."""
        self._opened.close()


def _reading(handle: Any) -> Reading:
    energy_mj = _ask(pynvml.nvmlDeviceGetTotalEnergyConsumption, handle)
    power_mw = _ask(pynvml.nvmlDeviceGetPowerUsage, handle)
    rates = _ask(pynvml.nvmlDeviceGetUtilizationRates, handle)
    memory = _ask(pynvml.nvmlDeviceGetMemoryInfo, handle)
    return Reading(
        None if energy_mj is None else energy_mj / 1000,
        Gauges(
            power_w=None if power_mw is None else power_mw / 1000,
            utilization=None if rates is None else rates.gpu / 100,
            memory_mb=None if memory is None else memory.used / 1e6,
            sm_clock_mhz=_ask(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_SM),
            memory_clock_mhz=_ask(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_MEM),
            temperature_c=_ask(pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU),
            throttled=_throttles(handle),
        ),
    )


def devices_of(
    devices: Mapping[tuple[int, str], Any], pids: Collection[int], environment: Mapping[str, str]
) -> tuple[dict[tuple[int, str], str], str]:
    """Return which devices are a server's, with their UUIDs, and what to say of how they were found.

    Args:
        devices: handles, as of `open_devices`, which must be open.
        pids: of the server's processes.
        environment: that it was started with.
    """
    uuids = {
        device: str(uuid) for device, handle in devices.items() if (uuid := _ask(pynvml.nvmlDeviceGetUUID, handle))
    }
    if opened := {device: uuid for device, uuid in uuids.items() if not _running(devices[device]).isdisjoint(pids)}:
        return opened, ""
    visible = visible_gpus({uuid: name for (_, name), uuid in uuids.items()}, environment)
    if visible is None:
        return uuids, "one of all of this machine: the driver does not say which of them are the server's"
    named = {uuid: device for device, uuid in uuids.items()}
    return {named[uuid]: uuid for uuid in visible}, "as CUDA_VISIBLE_DEVICES of the server names it"


def _running(handle: Any) -> set[int]:
    """Return the ids of the processes that compute on a GPU, as far as the driver says."""
    return {int(process.pid) for process in _ask(pynvml.nvmlDeviceGetComputeRunningProcesses, handle) or ()}


def _identity(uuid: str, name: str, handle: Any, how: str) -> Identity:
    limit_mw = _ask(pynvml.nvmlDeviceGetEnforcedPowerLimit, handle)
    is_mig = (_ask(pynvml.nvmlDeviceGetMigMode, handle) or [0])[0]
    note = "; ".join(filter(None, ("the whole board, with all its MIG instances" if is_mig else "", how)))
    return Identity("GPU", name, uuid, "nvml", limit_mw / 1000 if limit_mw else None, note)


def _throttles(handle: Any) -> list[str] | None:
    """Return what holds a GPU's clocks down; None where it does not say."""
    bits = _ask(pynvml.nvmlDeviceGetCurrentClocksEventReasons, handle)
    if bits is None:  # drivers before 535 have it by its older name alone
        bits = _ask(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle)
    return None if bits is None else [reason for bit, reason in THROTTLES.items() if bits & bit]


def _ask(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what NVML says; None where this GPU or this driver does not."""
    try:
        return function(*arguments)
    except pynvml.NVMLError:
        return None
