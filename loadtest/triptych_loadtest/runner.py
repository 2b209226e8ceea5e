"""From a warm-up to a run: Locust's runner between two readings of the server's counters."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
from gevent.event import Event
from locust.env import Environment
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from triptych import DetectionClient
from triptych.errors import ServerStartError
from triptych.measure.environment import describe_machine, settled_statistics, with_server
from triptych.measure.footprint_sampler import FootprintSampler
from triptych.measure.run_file import Run
from triptych.measure.traces import Tracing, sampling
from triptych.measure.window import Window
from triptych_loadtest import locust_events
from triptych_loadtest.load_test import LoadTest
from triptych_loadtest.locust_options import as_arguments
from triptych_loadtest.loops import REQUEST_TIMEOUT_S
from triptych_loadtest.payloads import Payload, payloads, read_images
from triptych_loadtest.recorder import Recorder
from triptych_loadtest.result import Measured, build_run
from triptych_loadtest.shapes import users_at
from triptych_loadtest.users import DetectionUser

WORKERS_TIMEOUT_S = 30
"""How long other processes that share the load may take to start, and to end a phase."""


def run(test: LoadTest, command: list[str], console: Console) -> tuple[Run, Window]:
    """Carry out a load test; return its run, and the window of its client and server with every latency.

    Args:
        test: what to do.
        command: what was typed, for the run.
        console: shows how far it is.

    Raises:
        ImageError: there are no images, or one cannot be read.
        RequestError: the server does not answer.
        ServerStartError: the other processes do not start or end.
        KeyboardInterrupt: somebody stopped it; the server has its own trace settings again.
    """
    images = read_images(test.images)
    measured = measure(test, payloads(images, test.batch, test.sizes_wh), console)
    with DetectionClient(test.address, credentials=test.credentials) as client:
        environment = with_server(describe_machine(test.address), client, test.model_repository)
    return build_run(test, images, environment, measured, command), measured.window


def measure(test: LoadTest, payloads: list[Payload], console: Console) -> Measured:
    """Warm up, then measure one window between two readings that nothing in flight can blur."""
    columns = (TextColumn("{task.description:>8}"), BarColumn(), TimeElapsedColumn())
    with (
        _stopped_by_signals() as stop,
        _generator(test, payloads, stop) as environment,  # first: it forks, which no connection survives
        DetectionClient(test.address, credentials=test.credentials) as client,
        Tracing(test.address, test.credentials) as tracing,
    ):
        client.statistics()  # if nobody is there it is known now, before the users start
        with Progress(*columns, console=console) as progress:
            warm_up, _ = _drive(environment, test, test.warmup_s, 0.0, progress)
            per_s = len(warm_up.answers) / test.warmup_s if test.warmup_s else test.expected_per_s
            traces = test.traces and tracing.start(sampling(per_s, len(payloads)))
            before = settled_statistics(client)
            with FootprintSampler(test.address) as sampler:
                recorder, began_s = _drive(environment, test, test.duration_s, 1.0, progress)
                footprint = sampler.stop()
            after = settled_statistics(client)
            traced = tracing.stop(len(recorder.answers)) if traces else []
    latencies_ms = [answer.latency_ms for answer in recorder.answers.values()]
    window = Window.between(before, after, latencies_ms, max(0.0, recorder.last_s - began_s))
    return Measured(began_s, window, recorder, traced, tracing.rate, footprint)


@contextlib.contextmanager
def _stopped_by_signals() -> Iterator[Event]:
    """Give an event that Ctrl-C and SIGTERM set, for the main greenlet to see.

    An exception would come out in whichever greenlet runs at that moment, and some swallow it.
    """
    stop = Event()
    handlers = [gevent.signal_handler(number, stop.set) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        yield stop
    finally:
        for handler in handlers:
            handler.cancel()


@contextlib.contextmanager
def _generator(test: LoadTest, payloads: list[Payload], stop: Event) -> Iterator[Any]:
    """Give Locust's environment with a runner: this process alone, or a master of several others."""
    environment = Environment(user_classes=[DetectionUser], host=test.address, stop_timeout=REQUEST_TIMEOUT_S + 1)
    environment.payloads, environment.profile, environment.stop = payloads, test.profile, stop
    environment.credentials = test.credentials
    workers: list[subprocess.Popen[bytes]] = []
    try:
        if test.processes == 1:
            environment.create_local_runner()
        else:
            runner = environment.create_master_runner("127.0.0.1", 0)
            workers = [_start_worker(test, runner.server.port) for _ in range(test.processes)]
        yield environment
    finally:
        if environment.runner is not None:
            environment.runner.quit()
        for worker in workers:
            worker.terminate()
            worker.wait()


def _start_worker(test: LoadTest, port: int) -> subprocess.Popen[bytes]:
    """Start another process with the same users, which the master at this port commands."""
    command = [sys.executable, "-m", "locust", "-f", str(Path(locust_events.__file__)), "--worker"]
    command += ["--master-host", "127.0.0.1", "--master-port", str(port), *as_arguments(test)]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _await(done: Callable[[], bool], what: str) -> None:
    """Wait until the other processes have done something."""
    deadline = time.monotonic() + WORKERS_TIMEOUT_S
    while not done():
        if time.monotonic() > deadline:
            raise ServerStartError(f"the load test's other processes did not {what} within {WORKERS_TIMEOUT_S} s")
        gevent.sleep(0.05)


def _drive(
    environment: Any, test: LoadTest, seconds: float, moves: float, progress: Progress
) -> tuple[Recorder, float]:
    """Run the users for so long, and let what is in flight end.

    Args:
        environment: Locust's.
        test: what the users do.
        seconds: how long.
        moves: 1 where the load takes its shape over that time, 0 where it stays as the shape begins.
        progress: shows how far it is.

    Returns:
        What was recorded, and when it began, in seconds of `time.time`.
    """
    runner = environment.runner
    bar = progress.add_task("measure" if moves else "warm up", total=seconds)
    with _recorded(environment, test.processes) as recorder:
        began_s, started, running = time.time(), time.perf_counter(), 0
        while (elapsed := time.perf_counter() - started) < seconds:
            if (wanted := _users_at(test, moves * elapsed / seconds)) != running:
                runner.start(wanted, spawn_rate=wanted)
                running = wanted
            progress.update(bar, completed=elapsed)
            if environment.stop.wait(min(0.2, max(0.0, seconds - elapsed))):
                raise KeyboardInterrupt
        runner.stop()
    progress.update(bar, completed=seconds)
    return recorder, began_s


@contextlib.contextmanager
def _recorded(environment: Any, processes: int) -> Iterator[Recorder]:
    """Record the requests of a phase, which ends with the last answer; complete when the context is left."""
    total, own = Recorder(), Recorder()
    if processes == 1:
        environment.events.request.add_listener(own)
        yield total
        environment.events.request.remove_listener(own)
        total.merge(own.take())
        return

    def take(data: dict[str, Any], **_other: object) -> None:
        total.merge(data["triptych"])

    runner = environment.runner
    # After a phase, Locust's workers are ready again only when they have slept for its stop_timeout.
    _await(lambda: len(runner.clients.ready) == processes, "start")
    environment.events.worker_report.add_listener(take)
    yield total
    _await(lambda: not runner.clients, "end")  # a worker's last report comes before it has stopped
    environment.events.worker_report.remove_listener(take)


def _users_at(test: LoadTest, at: float) -> int:
    """Return how many users Locust has then; in an open loop the rate changes, with one user for each process."""
    return test.processes if test.rate_per_s else users_at(test.shape, at, test.users)
