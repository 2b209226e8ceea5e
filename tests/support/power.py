"""Power of runs that are made up, so that its truth is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from support.measured import made_up, with_client
from triptych.measure.histogram import Histogram
from triptych.measure.power.figures import Device, Gauges, Identity, Power, SourceName
from triptych.measure.run_file import Run


def gpu(
    energy_j: float | None,
    number: int = 0,
    source: SourceName = "nvml",
    watts: Sequence[float] = (),
    throttled: Sequence[list[str]] = (),
    **gauges: float,
) -> Device:
    """A GPU whose energy is known to 100 J, if at all."""
    count = max(len(watts), len(throttled))
    intervals = [
        Gauges(
            power_w=watts[index] if watts else None, throttled=list(throttled[index]) if throttled else None, **gauges
        )
        for index in range(count)
    ]
    identity = Identity("GPU", "NVIDIA H100 80GB HBM3", f"GPU-{number}", source, 700.0)
    return _device(identity, energy_j, intervals)


def processor(energy_j: float | None) -> Device:
    """A processor."""
    return _device(Identity("CPU", "package-0", "intel-rapl:0", "rapl", note="the whole processor"), energy_j, [])


def _device(identity: Identity, energy_j: float | None, intervals: list[Gauges]) -> Device:
    if energy_j is None:
        return Device(identity, None, None, "its counter began anew meanwhile", intervals)
    return Device(identity, energy_j, 100.0, "", intervals)


def power(*devices: Device, seconds: float = 10.0) -> Power:
    """What these devices took; there is a reason for each kind that is missing."""
    return Power(seconds, 0.1, 0.4, list(devices), [] if devices else ["this machine shows no energy of its processor"])


def throttled_run() -> Run:
    """A run whose p99 is 400 ms in three of ten intervals in which its GPU was throttled, and 100 ms in the others."""
    held = [2, 5, 6]
    run = made_up()
    intervals = [replace(one, p99_ms=400.0 if number in held else 100.0) for number, one in enumerate(run.intervals)]
    throttled = [["power cap"] if number in held else [] for number in range(10)]
    watts = [690.0 if number in held else 610.0 for number in range(10)]
    card = gpu(
        6340.0,
        watts=watts,
        throttled=throttled,
        utilization=0.93,
        memory_mb=21_400.0,
        sm_clock_mhz=1890.0,
        memory_clock_mhz=2619.0,
        temperature_c=71.0,
    )
    client = with_client(run, latencies=Histogram([100.0] * 190 + [400.0] * 10))
    return replace(client, intervals=intervals, power=power(card, processor(1200.0)))
