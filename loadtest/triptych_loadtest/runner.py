"""From a warm-up to what was measured: Locust's runner between two readings of the server's counters."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import gevent
from gevent.event import Event
from locust.env import Environment
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from triptych import DetectionClient
from triptych.errors import ServerStartError
from triptych.measure.environment import settled_statistics
from triptych.measure.traces import TracedRequest, Tracing
from triptych.measure.window import Window
from triptych_loadtest import locust_events as locustfile
from triptych_loadtest.payloads import Payload
from triptych_loadtest.recorder import Recorder
from triptych_loadtest.shapes import users_at
from triptych_loadtest.users import REQUEST_TIMEOUT_S, DetectionUser, Load

WORKERS_TIMEOUT_S = 30
"""How long other processes that share the load may take to start, and to end a phase."""


@dataclass(frozen=True)
class Measured:
    """One measured window.

    Attributes:
        began_s: when it began, in seconds of `time.time`.
        window: client and server over it.
        recorder: every request of it.
        traced: the server's part in each; empty without traces.
    """

    began_s: float
    window: Window
    recorder: Recorder
    traced: list[TracedRequest]

    @property
    def started(self) -> str:
        """When it began: UTC, ISO 8601."""
        return datetime.fromtimestamp(self.began_s, timezone.utc).isoformat(timespec="seconds")


def measure(arguments: Namespace, payloads: list[Payload], console: Console) -> Measured:
    """Warm up, then measure one window between two readings that nothing in flight can blur.

    Raises:
        RequestError: the server does not answer.
        ServerStartError: the other processes do not start or end.
        KeyboardInterrupt: somebody stopped it; the server has its own trace settings again.
    """
    columns = (TextColumn("{task.description:>8}"), BarColumn(), TimeElapsedColumn())
    with (
        _stopped_by_signals() as stop,
        _generator(arguments, payloads, stop) as environment,  # first: it forks, which no connection survives
        DetectionClient(arguments.address) as client,
        Tracing(arguments.address) as tracing,
    ):
        client.statistics()  # if nobody is there it is known now, before the users start
        with Progress(*columns, console=console) as progress:
            _drive(environment, arguments, arguments.warmup, 0.0, progress)
            traces = not arguments.no_traces and tracing.start()
            before = settled_statistics(client)
            recorder, began_s = _drive(environment, arguments, arguments.duration, 1.0, progress)
            after = settled_statistics(client)
            traced = tracing.stop(len(recorder.answers)) if traces else []
    latencies_ms = [answer.latency_ms for answer in recorder.answers.values()]
    window = Window.between(before, after, latencies_ms, max(0.0, recorder.last_s - began_s))
    return Measured(began_s, window, recorder, traced)


@contextlib.contextmanager
def _stopped_by_signals() -> Iterator[Event]:
    """Set by Ctrl-C and SIGTERM, for the main greenlet to see.

    As an exception it would come out in whichever greenlet runs at that moment, and some swallow it.
    """
    stop = Event()
    handlers = [gevent.signal_handler(number, stop.set) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        yield stop
    finally:
        for handler in handlers:
            handler.cancel()


@contextlib.contextmanager
def _generator(arguments: Namespace, payloads: list[Payload], stop: Event) -> Iterator[Any]:
    """Locust's environment with a runner: this process alone, or a master of several others."""
    load = Load(
        arguments.rate / arguments.processes, arguments.poisson, arguments.fps, arguments.shape, arguments.duration
    )
    environment = Environment(user_classes=[DetectionUser], host=arguments.address, stop_timeout=REQUEST_TIMEOUT_S + 1)
    environment.payloads, environment.load, environment.stop = payloads, load, stop
    workers: list[subprocess.Popen[bytes]] = []
    try:
        if arguments.processes == 1:
            environment.create_local_runner()
        else:
            runner = environment.create_master_runner("127.0.0.1", 0)
            workers = [_worker(arguments, load, runner.server.port) for _ in range(arguments.processes)]
        yield environment
    finally:
        if environment.runner is not None:
            environment.runner.quit()
        for worker in workers:
            worker.terminate()
            worker.wait()


def _worker(arguments: Namespace, load: Load, port: int) -> subprocess.Popen[bytes]:
    """Another process of the same users, that the master at this port commands."""
    command = [sys.executable, "-m", "locust", "-f", str(Path(locustfile.__file__)), "--worker"]
    command += ["--master-host", "127.0.0.1", "--master-port", str(port)]
    command += ["--images", str(arguments.images), "--batch", str(arguments.batch), "--shape", load.shape]
    command += ["--rate", str(load.rate), "--fps", str(load.fps), "--run-time", f"{load.duration_s:.0f}s"]
    command += ["--poisson"] if load.poisson else []
    command += ["--sizes", *arguments.sizes] if arguments.sizes else []
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _await(done: Callable[[], bool], what: str) -> None:
    """Wait until the other processes have done something."""
    deadline = time.monotonic() + WORKERS_TIMEOUT_S
    while not done():
        if time.monotonic() > deadline:
            raise ServerStartError(f"the load test's other processes did not {what} within {WORKERS_TIMEOUT_S} s")
        gevent.sleep(0.05)


def _drive(
    environment: Any, arguments: Namespace, seconds: float, moves: float, progress: Progress
) -> tuple[Recorder, float]:
    """Run the users for so long, and let what is in flight end; what was recorded, and when it began by `time.time`.

    `moves` is 1 where the load takes its shape over that time, and 0 where it stays as the shape begins.
    """
    total, runner = Recorder(), environment.runner
    own = Recorder()

    def take(data: dict[str, Any], **_other: object) -> None:
        total.merge(data["triptych"])

    listener: Callable[..., None] = own
    event = environment.events.request
    if arguments.processes > 1:
        listener, event = take, environment.events.worker_report
        # After a phase, Locust's workers are ready again only when they have slept for its stop_timeout.
        _await(lambda: len(runner.clients.ready) == arguments.processes, "start")
    event.add_listener(listener)
    bar = progress.add_task("measure" if moves else "warm up", total=seconds)
    began_s, started, running = time.time(), time.perf_counter(), 0
    while (elapsed := time.perf_counter() - started) < seconds:
        if (wanted := _users_at(arguments, moves * elapsed / seconds)) != running:
            runner.start(wanted, spawn_rate=wanted)
            running = wanted
        progress.update(bar, completed=elapsed)
        if environment.stop.wait(min(0.2, max(0.0, seconds - elapsed))):
            raise KeyboardInterrupt
    runner.stop()
    if arguments.processes > 1:  # a worker's last report comes before it says that it has stopped
        _await(lambda: not runner.clients, "end")
    else:
        total.merge(own.take())
    progress.update(bar, completed=seconds)
    event.remove_listener(listener)
    return total, began_s


def _users_at(arguments: Namespace, at: float) -> int:
    """Users of Locust then; in an open loop, whose rate it is that changes, one for each process."""
    return arguments.processes if arguments.rate else users_at(arguments.shape, at, arguments.users)
