"""What the run file says of power: each GPU and each processor, with where its figures come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import mean
from typing import Literal

Kind = Literal["GPU", "CPU"]
"""What a device is: a GPU, or the package of a processor."""

SourceName = Literal["nvml", "triton", "rapl"]

SOURCES: dict[SourceName, str] = {"nvml": "NVML", "triton": "Triton's metrics", "rapl": "RAPL"}
"""What each source is called in sentences."""


@dataclass(frozen=True)
class Gauges:
    """What a device showed in one interval: means of its samples. None is what nobody says, or no sample lies in it.

    Attributes:
        power_w: in watts.
        utilization: the share of the time in which something ran on the GPU, 0..1.
        memory_mb: memory in use, in MB (10^6 bytes), by whatever program.
        sm_clock_mhz: of the GPU's multiprocessors.
        memory_clock_mhz: of its memory.
        temperature_c: in degrees Celsius.
        throttled: why its clocks were held down in any of the samples, such as "power cap"; empty if they were not.
    """

    power_w: float | None = None
    utilization: float | None = None
    memory_mb: float | None = None
    sm_clock_mhz: float | None = None
    memory_clock_mhz: float | None = None
    temperature_c: float | None = None
    throttled: list[str] | None = None


@dataclass(frozen=True)
class Identity:
    """Which device it is, and what does not change.

    Attributes:
        kind: a GPU, or the package of a processor.
        name: such as "NVIDIA H100 80GB HBM3"; of a source that knows no names, what it is called there.
        id: the GPU's UUID; of a processor, the name of its RAPL domain, such as `intel-rapl:0`.
        source: who says it: `nvml`, the driver of this machine; `triton`, the server's metrics; `rapl`, the counters of
            the processor.
        limit_w: the power that its driver allows, in watts; None where nobody says.
        note: what the figures are of, where that is not the device alone; else empty.
    """

    kind: Kind
    name: str
    id: str
    source: SourceName
    limit_w: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Throttling:
    """In how many intervals a device was throttled.

    Attributes:
        intervals: positions of those in which it was, among those of the device.
        known: in how many it is known whether it was.
        reasons: why, each once.
    """

    intervals: list[int]
    known: int
    reasons: list[str]

    def __str__(self) -> str:
        return f"throttled in {len(self.intervals)} of {self.known} intervals ({', '.join(self.reasons)})"


@dataclass(frozen=True)
class Device:
    """A GPU or a processor over the measured time.

    Attributes:
        identity: which one.
        energy_j: joules that it took, by its own counter; None where that is not known, never 0 for that.
        uncertainty_j: by how much that may be wrong: the joules between the two readings of the counter around the
            beginning, and between those around the end.
        unknown: why there is no energy; empty if there is.
        intervals: what it showed, in the parts of the run's `intervals`.
    """

    identity: Identity
    energy_j: float | None
    uncertainty_j: float | None
    unknown: str = ""
    intervals: list[Gauges] = field(default_factory=list)

    def values(self, gauge: str) -> list[float]:
        """Return a gauge of the intervals in which it is known."""
        return [value for one in self.intervals if (value := getattr(one, gauge)) is not None]

    def mean(self, gauge: str) -> float | None:
        """Return the mean of a gauge; None where it is not known."""
        values = self.values(gauge)
        return mean(values) if values else None

    @property
    def throttling(self) -> Throttling:
        """In how many intervals it was throttled."""
        known = [(number, one.throttled) for number, one in enumerate(self.intervals) if one.throttled is not None]
        reasons = dict.fromkeys(reason for _, said in known for reason in said)
        return Throttling([number for number, said in known if said], len(known), list(reasons))


@dataclass(frozen=True)
class Power:
    """Power and energy over exactly the measured time: from when the first request was due to the last answer.

    Attributes:
        seconds: how long that is.
        period_s: time between two samples, in seconds; a mean.
        sample_ms: CPU time of a sample, in milliseconds, of the process that measures; a mean.
        devices: those of the server's machine; empty where none could be read.
        missing: why the devices of a source are not there, a sentence each.
    """

    seconds: float
    period_s: float
    sample_ms: float
    devices: list[Device]
    missing: list[str]

    def of(self, kind: Kind) -> list[Device]:
        """Return the devices of a kind."""
        return [device for device in self.devices if device.identity.kind == kind]

    @property
    def kinds(self) -> list[Kind]:
        """The kinds of devices whose energy is known, of all of them."""
        kinds: list[Kind] = ["GPU", "CPU"]
        return [
            kind for kind in kinds if self.of(kind) and all(device.energy_j is not None for device in self.of(kind))
        ]

    def energy_j(self, kind: Kind) -> float:
        """Return the joules of all devices of one of the `kinds`."""
        return sum(device.energy_j or 0.0 for device in self.of(kind))

    def accuracy(self, kind: Kind) -> float:
        """Return the factor to which the energy of one of the `kinds` is known: 1.05 for 5%."""
        return 1 + sum(device.uncertainty_j or 0.0 for device in self.of(kind)) / self.energy_j(kind)

    def source_of(self, kind: Kind) -> SourceName:
        """Return who says what the devices of a kind took, of which there is one."""
        return self.of(kind)[0].identity.source

    @property
    def sources(self) -> str:
        """Who says what: such as `GPU by NVML`."""
        return ", ".join(f"{kind} by {SOURCES[self.source_of(kind)]}" for kind in self.kinds)


def mean_power_w(power: Power, device: Device) -> float | None:
    """Return the mean power of a device: of its energy, and where that is not known, of its gauge."""
    return device.mean("power_w") if device.energy_j is None else device.energy_j / power.seconds


def pool_power(powers: Sequence[Power | None]) -> Power | None:
    """Put the power of several runs together; None where one has none, or they are of different devices."""
    known = [power for power in powers if power is not None]
    ids = {tuple(device.identity.id for device in power.devices) for power in known}
    if len(known) < len(powers) or len(ids) != 1:
        return None
    return replace(
        known[0],
        seconds=sum(power.seconds for power in known),
        sample_ms=mean(power.sample_ms for power in known),
        devices=[_pool_devices(of_all) for of_all in zip(*(power.devices for power in known), strict=True)],
        missing=list(dict.fromkeys(sentence for power in known for sentence in power.missing)),
    )


def _pool_devices(devices: Sequence[Device]) -> Device:
    energies = [device.energy_j for device in devices]
    return replace(
        devices[0],
        energy_j=None if None in energies else sum(energy_j or 0.0 for energy_j in energies),
        uncertainty_j=None if None in energies else sum(device.uncertainty_j or 0.0 for device in devices),
        unknown=next((device.unknown for device in devices if device.unknown), ""),
        intervals=[one for device in devices for one in device.intervals],
    )


def joules(value: float) -> str:
    """Write joules, which are from less than one to millions."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def power_sentences(power: Power, images: int) -> list[str]:
    """Say what the devices of each kind took, and how many images that is to the joule."""
    sentences = []
    for kind in power.kinds:
        energy_j, count = power.energy_j(kind), len(power.of(kind))
        wrong_j, source = energy_j * (power.accuracy(kind) - 1), SOURCES[power.source_of(kind)]
        sentences.append(
            f"{count} {kind}{'s' * (count != 1)} took {joules(energy_j)} J (give or take {joules(wrong_j)}) by "
            f"{source}, {energy_j / power.seconds:.3g} W: {images / energy_j:.3g} images per joule"
        )
    return sentences
