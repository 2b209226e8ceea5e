"""What a server takes of its machine while it is measured: memory, open files and threads of each of its processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from triptych.measure.slope import Slope, slope_of


@dataclass(frozen=True)
class Trend:
    """How one figure went on.

    Attributes:
        first, last, max: of its samples.
        slope: by how much it grew in a minute, without the first fifth of the time; None of fewer than 25 samples.
    """

    first: float
    last: float
    max: float
    slope: Slope | None

    @classmethod
    def of(cls, times_s: Sequence[float], values: Sequence[float]) -> Trend:
        """Describe at least one sample."""
        return cls(values[0], values[-1], max(values), slope_of(times_s, values))


@dataclass(frozen=True)
class ProcessFootprint:
    """One process of the server.

    Attributes:
        name: `tritonserver`, or the model that it runs; with it count the processes that it started, such as decoders.
        version: of the model; empty for the server.
        pid: its id.
        from_s, to_s: when it was seen first and last, in seconds since the measurement began.
        memory_mb: resident memory in MB (10^6 bytes), shared pages included.
        files: open file descriptors.
        threads: how many run.
    """

    name: str
    version: str
    pid: int
    from_s: float
    to_s: float
    memory_mb: Trend
    files: Trend
    threads: Trend

    @property
    def title(self) -> str:
        """Such as `detector 3 (process 1234)`."""
        return f"{' '.join(filter(None, (self.name, self.version)))} (process {self.pid})"


@dataclass(frozen=True)
class GpuFootprint:
    """One GPU of the server, which other programs may use too.

    Attributes:
        index: its number in NVML.
        name: such as "NVIDIA H100 80GB HBM3".
        memory_mb: memory in use in MB (10^6 bytes), by whatever program.
    """

    index: int
    name: str
    memory_mb: Trend


@dataclass(frozen=True)
class Footprint:
    """A server of this machine over the measured time.

    Attributes:
        period_s: time between two samples, in seconds.
        seconds: from the first sample to the last.
        processes: in the order in which they were seen; a process that was replaced has its own entry.
        gpus: those that the server's processes have opened; where the driver does not know them, those that the
            server's CUDA_VISIBLE_DEVICES names, else all of the machine, as in earlier runs. Empty where
            there are none.
    """

    period_s: float
    seconds: float
    processes: list[ProcessFootprint]
    gpus: list[GpuFootprint]

    @property
    def last(self) -> list[ProcessFootprint]:
        """The processes that lived at the end; a sample may have missed one."""
        return [process for process in self.processes if process.to_s > self.seconds - 2 * self.period_s]


@dataclass(frozen=True)
class Growth:
    """Something that grows, and where.

    Attributes:
        where: a process, or memory of a GPU.
        what: such as "MB".
        slope: of it.
    """

    where: str
    what: str
    slope: Slope

    def __str__(self) -> str:
        low, high = self.slope.low, self.slope.high
        return f"{self.where} grows by {self.slope.per_min:.3g} ({low:.3g} to {high:.3g}) {self.what} a minute"


def growths(footprint: Footprint, at_least_s: float, least_per_min: float) -> Iterator[Growth]:
    """Give what surely grows: what was seen for long enough, and whose slope's lower bound is above a limit.

    Args:
        footprint: of a server.
        at_least_s: for how long a process must have been seen, in seconds.
        least_per_min: the limit, in MB, files or threads a minute.
    """
    trends = [
        (process.title, what, trend)
        for process in footprint.processes
        if process.to_s - process.from_s >= at_least_s
        for what, trend in (("MB", process.memory_mb), ("open files", process.files), ("threads", process.threads))
    ]
    if footprint.seconds >= at_least_s:
        trends += [(f"memory in use on GPU {gpu.index} by all programs", "MB", gpu.memory_mb) for gpu in footprint.gpus]
    for where, what, trend in trends:
        if trend.slope is not None and trend.slope.low > least_per_min:
            yield Growth(where, what, trend.slope)


def footprint_sentence(footprint: Footprint) -> str:
    """Say what the server holds at the end, and what is in use on its GPUs, by whomever."""
    living = footprint.last
    memory_mb, files, threads = (
        sum(trend.last for trend in trends)
        for trends in zip(*((process.memory_mb, process.files, process.threads) for process in living), strict=True)
    )
    gpus = "".join(f"; {gpu.memory_mb.last:.0f} MB of GPU {gpu.index} are in use" for gpu in footprint.gpus)
    return (
        f"the server holds {memory_mb:.0f} MB, {files:.0f} open files and {threads:.0f} threads in "
        f"{len(living)} process{'es' * (len(living) != 1)}{gpus}"
    )
