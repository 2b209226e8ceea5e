"""Reads the power of a server's GPUs and processors for as long as it is measured."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import mean
from types import TracebackType

import psutil

from triptych.measure.power.energy import energy_between
from triptych.measure.power.figures import Device, Gauges, Identity, Power
from triptych.measure.power.metrics import TritonMetrics, url_of
from triptych.measure.power.nvml import Nvml
from triptych.measure.power.rapl import Rapl
from triptych.measure.power.source import Reading, Source
from triptych.serving.processes import SERVER, environment_of, process_on_port
from triptych.wire.channel import is_here

MOST_SAMPLES = 2400
"""Then every second one is dropped, and the time between two is doubled."""

COST = 0.01
"""The share of a core that the thread may take; drivers that cost more are read less often."""

END_TIMEOUT_S = 5.0
"""How long the last reading may take; a driver that hangs is left alone."""

_GAUGES = tuple(name for name in Gauges.__dataclass_fields__ if name != "throttled")


@dataclass(frozen=True)
class Span:
    """The measured time, and its parts; in seconds of `time.monotonic`.

    Attributes:
        began_s: when the first request was due.
        ended_s: when the last answer was there.
        interval_s: how long a part is.
        intervals: how many parts; what comes after them belongs to the last one.
    """

    began_s: float
    ended_s: float
    interval_s: float
    intervals: int

    def part(self, at_s: float) -> int | None:
        """Return in which part a moment lies; None if in none."""
        if not self.began_s <= at_s <= self.ended_s:
            return None
        return min(int((at_s - self.began_s) / self.interval_s), self.intervals - 1) if self.interval_s else 0


@dataclass(frozen=True)
class _Sample:
    at_s: float
    cpu_s: float
    readings: dict[str, Reading]


class PowerSampler:
    """Samples the machine of the server at an address in a thread of its own, from `__enter__` to `stop`.

    It begins before the measured time and goes on after it, so that counters are known on both sides of each end.
    """

    def __init__(self, address: str, metrics_url: str = "") -> None:
        """Prepare to sample the server at `address`.

        Args:
            address: HOST:PORT.
            metrics_url: where its metrics are, which then say what its GPUs take; empty to ask this machine's driver if
                the server runs here, and else Triton's port of metrics on its host.
        """
        self._address, self._metrics_url = address, metrics_url
        self._sources: list[Source] = []
        self._readable: list[Source] = []
        self._missing: list[str] = []
        self._period_s = 0.0
        self._samples: list[_Sample] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> PowerSampler:
        self._open()
        self._readable = [source for source in self._sources if source.identities]
        if self._readable:
            self._period_s = max(source.period_s for source in self._readable)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def stop(self, span: Span, answered: int) -> Power:
        """Take the last sample and return what was seen.

        Args:
            span: what was measured of the time since `__enter__`.
            answered: how many requests the server answered in it.
        """
        self._end()
        samples, missing = list(self._samples), list(self._missing)
        identities: dict[str, Identity] = {}
        for source in self._sources:
            objection = source.objection(answered) if source in self._readable else ""
            identities |= {} if objection else source.identities
            missing += filter(None, (source.missing, objection))
        at_s = [sample.at_s for sample in samples]
        return Power(
            seconds=span.ended_s - span.began_s,
            period_s=(at_s[-1] - at_s[0]) / (len(at_s) - 1) if len(at_s) > 1 else 0.0,
            sample_ms=1000 * mean(sample.cpu_s for sample in samples) if samples else 0.0,
            devices=[_device(identity, key, samples, span) for key, identity in identities.items()],
            missing=missing,
        )

    def _open(self) -> None:
        server = _server(self._address)
        if server is None or self._metrics_url:
            if url := self._metrics_url or url_of(self._address):
                self._sources.append(TritonMetrics(url))
        else:
            self._sources.append(Nvml(_pids(server), environment_of(server)))
        if server is not None:
            self._sources.append(Rapl())
        else:
            self._missing.append("the server is not seen on this machine, which has no figures of its processor then")

    def _end(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(END_TIMEOUT_S)
        if not self._thread.is_alive():
            for source in self._sources:
                source.close()

    def _run(self) -> None:
        while True:
            last = self._stop.is_set()
            began_s, began_cpu_s = time.monotonic(), time.thread_time()
            readings = {key: reading for source in self._readable for key, reading in source.read().items()}
            cpu_s = time.thread_time() - began_cpu_s
            self._samples.append(_Sample((began_s + time.monotonic()) / 2, cpu_s, readings))
            if last:
                return
            if len(self._samples) >= MOST_SAMPLES:
                self._period_s *= 2
                self._samples = self._samples[::2]
            self._stop.wait(max(self._period_s, cpu_s / COST))


def _device(identity: Identity, key: str, samples: Sequence[_Sample], span: Span) -> Device:
    """Return what one device showed."""
    seen = [(sample.at_s, sample.readings[key]) for sample in samples if key in sample.readings]
    counted = [(at_s, reading.energy_j) for at_s, reading in seen if reading.energy_j is not None]
    energy = energy_between(
        [at_s for at_s, _ in counted], [joules for _, joules in counted], span.began_s, span.ended_s
    )
    by_part: defaultdict[int | None, list[Gauges]] = defaultdict(list)
    for at_s, reading in seen:
        by_part[span.part(at_s)].append(reading.gauges)
    intervals = [_mean(by_part[number]) for number in range(span.intervals)]
    unknown = energy.unknown if counted else "it has no counter of energy"
    return Device(identity, energy.joules, energy.uncertainty_j, unknown, intervals)


def _mean(gauges: Sequence[Gauges]) -> Gauges:
    """Return the means of what is known, and all reasons of throttling."""
    values = {name: [value for one in gauges if (value := getattr(one, name)) is not None] for name in _GAUGES}
    said = [one.throttled for one in gauges if one.throttled is not None]
    throttled = list(dict.fromkeys(reason for reasons in said for reason in reasons)) if said else None
    return replace(Gauges(**{name: mean(of) for name, of in values.items() if of}), throttled=throttled)


def _server(address: str) -> psutil.Process | None:
    """Return the Triton of this machine that serves at an address; None if it cannot be seen."""
    port = address.rpartition(":")[2]
    server = process_on_port(int(port)) if is_here(address) and port.isdigit() else None
    with contextlib.suppress(psutil.Error):
        if server is not None and server.name() == SERVER:
            return server
    return None


def _pids(server: psutil.Process) -> set[int]:
    try:
        return {server.pid, *(child.pid for child in server.children(recursive=True))}
    except psutil.Error:
        return {server.pid}
