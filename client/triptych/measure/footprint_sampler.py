"""Samples what a server on this machine holds, for as long as it is measured."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import defaultdict
from types import TracebackType
from typing import Any

import psutil
import pynvml

from triptych.measure.footprint import Footprint, GpuFootprint, ProcessFootprint, Trend
from triptych.measure.power.nvml import devices_of, open_devices
from triptych.serving.processes import SERVER, ModelProcess, environment_of, model_processes, process_on_port
from triptych.wire.channel import is_here

PERIOD_S = 1.0
"""Time between two samples, until there are `MOST_SAMPLES`."""

MOST_SAMPLES = 1200
"""Then every second one is dropped, and the time between two is doubled."""

LOOK_EVERY = 10
"""After so many samples, or when one is gone, it looks which processes there are: that takes longer than a sample."""


class _Series:
    """Samples of one process or GPU."""

    def __init__(self) -> None:
        self.times_s: list[float] = []
        self._figures: list[tuple[float, ...]] = []

    def add(self, at_s: float, figures: tuple[float, ...]) -> None:
        self.times_s.append(at_s)
        self._figures.append(figures)

    def thin(self) -> None:
        self.times_s, self._figures = self.times_s[::2], self._figures[::2]

    def trends(self) -> list[Trend]:
        return [Trend.of(self.times_s, column) for column in zip(*self._figures, strict=True)]


class FootprintSampler:
    """Samples the server at an address in a thread of its own, from `__enter__` to `stop`.

    It takes only what it can see: a Triton that listens on a port of this machine, and whose processes it may read.
    """

    def __init__(self, address: str, period_s: float = PERIOD_S) -> None:
        """Prepare to sample the server at `address`, HOST:PORT, every `period_s` seconds."""
        port = address.rpartition(":")[2]
        self._port = int(port) if is_here(address) and port.isdigit() else None
        self._period_s = period_s
        self._server: psutil.Process | None = None
        self._members: dict[ModelProcess, list[psutil.Process]] = {}
        self._devices: dict[tuple[int, str], str] = {}
        self._processes: defaultdict[ModelProcess, _Series] = defaultdict(_Series)
        self._gpus: defaultdict[tuple[int, str], _Series] = defaultdict(_Series)
        self._taken = 0
        self._is_stale = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> FootprintSampler:
        self._began = time.monotonic()
        if self._port is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def stop(self) -> Footprint | None:
        """Take the last sample and return what was seen; None if no server can be seen from here."""
        self._end()
        if not self._processes:
            return None
        processes = [
            ProcessFootprint(one.model, one.version, one.pid, series.times_s[0], series.times_s[-1], *series.trends())
            for one, series in self._processes.items()
        ]
        gpus = [GpuFootprint(*device, *self._gpus[device].trends()) for device in self._devices if device in self._gpus]
        return Footprint(self._period_s, max(process.to_s for process in processes), processes, gpus)

    def _end(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        with open_devices() as devices:
            self._sample(devices)
            while not self._stop.wait(self._period_s):
                self._sample(devices)
            self._sample(devices)

    def _sample(self, devices: dict[tuple[int, str], Any]) -> None:
        at_s = time.monotonic() - self._began
        if self._is_stale or self._taken % LOOK_EVERY == 0:
            self._look(devices)
        self._taken += 1
        for one, members in self._members.items():
            try:
                figures = [_figures(process) for process in members]
            except psutil.Error:  # gone, or not ours to read
                self._is_stale = True
                continue
            self._processes[one].add(at_s, tuple(map(sum, zip(*figures, strict=True))))
        for device in self._devices if self._members else ():
            with contextlib.suppress(pynvml.NVMLError):
                self._gpus[device].add(at_s, (pynvml.nvmlDeviceGetMemoryInfo(devices[device]).used / 1e6,))
        if any(len(series.times_s) >= MOST_SAMPLES for series in self._processes.values()):
            self._period_s *= 2
            for series in (*self._processes.values(), *self._gpus.values()):
                series.thin()

    def _look(self, devices: dict[tuple[int, str], Any]) -> None:
        """Find the server's processes and GPUs, and the server itself if it is not known or gone."""
        self._is_stale = False
        if self._port and (self._server is None or not self._server.is_running()):
            self._server = process_on_port(self._port)
        self._members = _members(self._server) if self._server else {}
        if self._server and self._members:
            pids = {process.pid for members in self._members.values() for process in members}
            self._devices, _ = devices_of(devices, pids, environment_of(self._server))


def _members(server: psutil.Process) -> dict[ModelProcess, list[psutil.Process]]:
    """Return a server and its model processes, each with the processes that belong to it; none if it is no Triton."""
    try:
        if server.name() != SERVER:
            return {}
        models = {process.pid: process for process in model_processes(server)}
        owners = {server.pid: ModelProcess(server.pid, SERVER, ""), **models}
        members = {owners[server.pid]: [server]}
        for child in server.children(recursive=True):  # a parent comes before its children
            owner = owners.setdefault(child.pid, owners[child.ppid()])
            members.setdefault(owner, []).append(child)
    except (psutil.Error, KeyError):  # somebody ended meanwhile
        return {}
    return members


def _figures(process: psutil.Process) -> tuple[float, float, float]:
    """Return MB of resident memory, open files and threads."""
    with process.oneshot():
        return process.memory_info().rss / 1e6, process.num_fds(), process.num_threads()
