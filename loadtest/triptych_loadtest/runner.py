"""From a warm-up to a run: two phases of load, and two readings of the server's counters around the second."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timezone

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from triptych import DetectionClient
from triptych.measure.environment import describe_machine, settled_statistics, with_server
from triptych.measure.footprint_sampler import FootprintSampler
from triptych.measure.power.sampler import PowerSampler, Span
from triptych.measure.run_file import Run
from triptych.measure.traces import Tracing, sampling
from triptych.measure.window import Window
from triptych_loadtest.generator import Generator
from triptych_loadtest.load_test import LoadTest, Phase
from triptych_loadtest.payloads import Payloads, payloads, read_images
from triptych_loadtest.recorder import Recorder
from triptych_loadtest.result import Measured, build_run


def run(test: LoadTest, command: list[str], console: Console) -> Run:
    """Carry out a load test.

    Args:
        test: what to do.
        command: what was typed, for the run.
        console: shows how far it is.

    Raises:
        ImageError: there are no images, or one cannot be read.
        RequestError: the server does not answer.
        MeasurementError: a process that sends requests died, or somebody else measures the server.
        KeyboardInterrupt: somebody stopped it; the server has its own trace settings again.
    """
    images = read_images(test.images)
    measured = measure(test, payloads(images, test.batch, test.sizes_wh), console)
    with DetectionClient(test.address, credentials=test.credentials) as client:
        environment = with_server(describe_machine(test.address), client, test.model_repository)
    return build_run(test, images, environment, measured, command)


def measure(test: LoadTest, payloads: Payloads, console: Console) -> Measured:
    """Warm up, then measure one window between two readings that nothing in flight can blur."""
    columns = (TextColumn("{task.description:>8}"), BarColumn(), TimeElapsedColumn())
    with (
        DetectionClient(test.address, credentials=test.credentials) as client,
        Tracing(test.address, test.credentials) as tracing,
    ):
        client.statistics()  # if nobody is there it is known now, before the users start
        traces = test.traces and tracing.claim()
        with (
            Generator(test, payloads) as generator,
            PowerSampler(test.address, test.metrics_url) as meter,
            Progress(*columns, console=console) as progress,
        ):
            per_s = max(_warm_up(test, generator, progress), test.rate_per_s)
            traces = traces and tracing.start(sampling(per_s))
            before = settled_statistics(client)
            with FootprintSampler(test.address) as sampler:
                started = datetime.now(timezone.utc)
                phase = generator.begin(test.duration_s)
                recorder = Recorder(test, phase, traced=traces)
                advance = _bar(progress, "measure", phase)

                def tick() -> None:
                    advance()
                    if traces:
                        recorder.trace(tracing.poll())

                generator.finish(phase, recorder.take, tick)
                footprint = sampler.stop()
            after = settled_statistics(client)
            span = Span(phase.begins_s, recorder.last_s, test.duration_s / test.intervals, test.intervals)
            power = meter.stop(span, recorder.all_latencies.count)
            if traces:
                recorder.trace(tracing.stop(recorder.all_latencies.count))
    window = Window.between(before, after, recorder.all_latencies, recorder.last_s - phase.begins_s)
    return Measured(started, window, recorder, tracing.rate, footprint, power)


def _warm_up(test: LoadTest, generator: Generator, progress: Progress) -> float:
    """Have the users send for a while, and return how many requests were answered a second."""
    if not test.warmup_s:
        return test.expected_per_s
    phase = generator.begin(test.warmup_s)
    recorder = Recorder(test, phase)
    generator.finish(phase, recorder.take, _bar(progress, "warm up", phase))
    return recorder.all_latencies.count / test.warmup_s


def _bar(progress: Progress, name: str, phase: Phase) -> Callable[[], None]:
    """Show a bar for a phase; return what moves it on."""
    seconds = phase.ends_s - phase.begins_s
    bar = progress.add_task(name, total=seconds)
    return lambda: progress.update(bar, completed=min(seconds, max(0.0, time.monotonic() - phase.begins_s)))
