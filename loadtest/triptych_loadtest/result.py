"""What a load test measured, as the run that its file holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from triptych.measure import attribution
from triptych.measure.attribution import Attribution
from triptych.measure.footprint import Footprint
from triptych.measure.power.figures import Power
from triptych.measure.run_file import ClientSide, Environment, ImageSet, Run, Workload
from triptych.measure.window import Window
from triptych_loadtest.load_test import LoadTest
from triptych_loadtest.recorder import Recorder


@dataclass(frozen=True)
class Measured:
    """One measured window.

    Attributes:
        started: when it began, in UTC.
        window: client and server over it.
        recorder: every request of it.
        trace_rate: of how many requests one was traced.
        footprint: what the server's processes held; None where they cannot be seen.
        power: what its machine took.
    """

    started: datetime
    window: Window
    recorder: Recorder
    trace_rate: int = 1
    footprint: Footprint | None = None
    power: Power | None = None


def build_run(
    test: LoadTest, images: Sequence[bytes], environment: Environment, measured: Measured, command: list[str]
) -> Run:
    """Put a run together.

    Args:
        test: what was asked.
        images: what was sent.
        environment: where it ran.
        measured: what came of it.
        command: what was typed.

    Raises:
        MeasurementError: a model began to count anew meanwhile, and there are no traces to tell where the time went.
    """
    return Run(
        started=measured.started.isoformat(timespec="seconds"),
        workload=_workload(test, images),
        environment=environment,
        client=_client_side(measured),
        server=dict(measured.window.counters),
        attribution=_attribution(measured),
        intervals=measured.recorder.timeline.intervals(measured.recorder.joined.requests),
        command=command,
        interrupted=measured.window.interrupted,
        footprint=measured.footprint,
        power=measured.power,
    )


def _workload(test: LoadTest, images: Sequence[bytes]) -> Workload:
    return Workload(
        loop=test.profile.loop,
        users=0 if test.rate_per_s else test.users,
        rate_per_s=test.rate_per_s or test.fps or None,
        shape=test.shape,
        batch=test.batch,
        sizes=[f"{width}x{height}" for width, height in test.sizes_wh],
        processes=test.processes,
        warmup_s=test.warmup_s,
        duration_s=test.duration_s,
        images=ImageSet.of(images),
        seed=test.seed,
    )


def _client_side(measured: Measured) -> ClientSide:
    recorder, seconds = measured.recorder, measured.window.duration_s
    return ClientSide(
        latencies=recorder.all_latencies,
        by_request=dict(recorder.latencies) if len(recorder.latencies) > 1 else {},
        failures=recorder.failures,
        seconds=seconds,
        cpu_s=sum(recorder.cpu_s.values()),
        busiest=max(recorder.cpu_s.values(), default=0.0) / seconds if seconds else 0.0,
        truncated=recorder.truncated,
        unsent=recorder.unsent,
        dependence=recorder.dependence,
    )


def _attribution(measured: Measured) -> Attribution:
    """Return where the time went: from the traces, or, where there are none, from the server's statistics."""
    joined = measured.recorder.joined
    if not len(joined.requests):
        return attribution.from_statistics(measured.window, measured.recorder.own_ms)
    from_traces = attribution.from_requests(joined.requests, measured.recorder.all_latencies)
    return replace(from_traces, trace_rate=measured.trace_rate * joined.one_in)
