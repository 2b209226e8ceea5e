"""What traces cost a server, as `triptych loadtest` switches them on.

    python benchmarks/tracing.py

Windows take turns: nothing, traces, nothing, another server, nothing, traces… A window with traces is compared with the
mean of the two around it, so that a machine whose speed drifts treats them alike. The other server is the control:
started like the first one, and not traced either. How far its ratios are from 1 is noise, and what servers differ by.

There are two loads. One is the demo. The other is an ensemble whose detector answers at once, with small images and
more users, so that it answers about as many requests a second as an ensemble on the Python backend can. The clients
share the cores with the server. CPU time is that of the server with its models' processes. It includes writing the
traces to their files.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
import psutil
from fixtures import DEMO, encoded_boards, our_repository
from rich.console import Console
from scipy import stats

from triptych import DetectionClient, TritonServer
from triptych.machine import available_cores, cpu_model
from triptych.measure.traces import Tracing
from triptych.serving.preflight import Ports
from triptych_build.publish.target import InstanceGroup

PACKAGES = ("triptych", "nvidia-pytriton", "openvino", "tritonclient", "grpcio", "numpy")

AT_ONCE = """

import numpy as np


def _at_once(self, request):
    images = pb_utils.get_input_tensor_by_name(request, "pixels").as_numpy().shape[0]
    candidates = stamp(np.zeros((images, 300, 6), np.float32), self.names)
    return pb_utils.InferenceResponse([pb_utils.Tensor("candidates", candidates)])


TritonPythonModel.respond = _at_once
"""


@dataclass(frozen=True)
class Turn:
    """One window.

    Attributes:
        rate_per_s: requests answered a second.
        p50_ms: by the client's clock.
        p99_ms: the same. The demo answers few requests in a window, so there it is nearly the longest.
        cpu_ms: CPU time per request, of the server with its models' processes.
    """

    rate_per_s: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float


@dataclass(frozen=True)
class Spread:
    """The median over rounds, and its 95% confidence interval, which depends on their order only."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of at least six values. One round that something disturbed does not move it."""
        interval = stats.quantile_test(values, p=0.5).confidence_interval(0.95)
        return cls(float(np.median(values)), float(interval.low), float(interval.high))

    def cell(self, digits: int) -> str:
        """Return it as a cell of the table."""
        return f"{self.median:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


def turn(server: TritonServer, traced: bool, images: list[bytes], users: int, seconds: float) -> Turn:
    """Measure one window of users that each wait for their answer."""
    stop = threading.Event()

    def user(number: int) -> list[float]:
        latencies: list[float] = []
        while not stop.is_set():
            sent = time.perf_counter()
            client.detect(images[(number + len(latencies)) % len(images)])
            latencies.append((time.perf_counter() - sent) * 1000)
        return latencies

    with (
        DetectionClient(server.grpc_address, timeout_s=60) as client,
        ThreadPoolExecutor(users) as pool,
        Tracing(server.grpc_address) as tracing,
    ):
        list(pool.map(client.detect, images[:1] * 4 * users))
        cpu_s = cpu_seconds(server)
        if traced and not tracing.start():
            sys.exit("the server's traces cannot be switched on")
        started = time.perf_counter()
        running = [pool.submit(user, number) for number in range(users)]
        time.sleep(seconds)
        stop.set()
        latencies = [latency for future in running for latency in future.result()]
        elapsed_s = time.perf_counter() - started
        if traced and len(tracing.stop(len(latencies))) < len(latencies):
            sys.exit("not every request left a trace")
        cpu_s = cpu_seconds(server) - cpu_s
    p50_ms, p99_ms = map(float, np.percentile(latencies, (50, 99)))
    return Turn(len(latencies) / elapsed_s, p50_ms, p99_ms, cpu_s / len(latencies) * 1000)


def cpu_seconds(server: TritonServer) -> float:
    """Return the CPU time so far of the server and its models' processes."""
    ids = [server.pid, *(pid for pids in server.model_processes().values() for pid in pids)]
    times = [psutil.Process(pid).cpu_times() for pid in ids]
    return sum(used.user + used.system for used in times)


def rows(load: str, plain: list[Turn], others: dict[str, list[Turn]]) -> list[str]:
    """Return the rows of one load. The n-th window of the k-th of `others` is between two of `plain`."""
    figures = [field.name for field in fields(Turn)]
    medians = [float(np.median([getattr(turn, name) for turn in plain])) for name in figures]
    lines = [f"| {load} | nothing | {' | '.join(f'{median:.2f}' for median in medians)} | |"]
    for k, (name, turns) in enumerate(others.items()):
        around = [(plain[n * len(others) + k], plain[n * len(others) + k + 1]) for n in range(len(turns))]

        def ratios(figure: str, turns: list[Turn] = turns, around: list[tuple[Turn, Turn]] = around) -> Spread:
            means = [(getattr(before, figure) + getattr(after, figure)) / 2 for before, after in around]
            return Spread.of([getattr(turn, figure) / mean for turn, mean in zip(turns, means, strict=True)])

        more = [
            turn.cpu_ms - (before.cpu_ms + after.cpu_ms) / 2
            for turn, (before, after) in zip(turns, around, strict=True)
        ]
        cells = [ratios(figure).cell(3) for figure in figures]
        lines.append(f"| | {name} | {' | '.join(cells)} | {Spread.of(more).cell(2)} |")
    return lines


def compare(
    repository: Path, images: list[bytes], users: int, rounds: int, seconds: float, console: Console
) -> tuple[list[Turn], dict[str, list[Turn]]]:
    """Return the windows of one load: those without traces, and the others by name."""
    with ExitStack() as stack:

        def serve(name: str) -> TritonServer:
            log = repository.parent / f"{name}.log"
            return stack.enter_context(TritonServer(repository, ports=Ports.free(), log_path=log))

        first, second = serve("first"), serve("second")
        ways = {"traces": (first, True), "nothing, another server": (second, False)}
        for server in (first, second):
            turn(server, False, images, users, 1)
        plain = [turn(first, False, images, users, seconds)]
        others: dict[str, list[Turn]] = {name: [] for name in ways}
        for number in range(rounds):
            for name, (server, traced) in ways.items():
                others[name].append(turn(server, traced, images, users, seconds))
                plain.append(turn(first, False, images, users, seconds))
            rates = [f"{name} {turns[-1].rate_per_s:.1f}" for name, turns in (("nothing", plain), *others.items())]
            console.print(f"round {number + 1} of {rounds}: requests/s {', '.join(rates)}", style="dim")
    return plain, others


def main() -> None:
    """Measure both loads and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=16, help="windows with traces, at least 6 (16)")
    parser.add_argument("--seconds", type=float, default=3, help="length of a window (3)")
    arguments = parser.parse_args()
    console, progress = Console(width=200, highlight=False), Console(stderr=True, highlight=False)
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    console.print(f"{cpu_model()}, {available_cores()} cores; Python {platform.python_version()}, {versions}\n")
    small = cv2.imencode(".jpg", np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8))[1].tobytes()
    table = []
    for load, images, users, addition in (
        ("demo, 4 users", encoded_boards(16), 4, ""),
        ("instant detector, 8 users", [small], 8, AT_ONCE),
    ):
        with tempfile.TemporaryDirectory(prefix="triptych-benchmark-") as name:
            group = InstanceGroup.for_cores(available_cores())
            repository = our_repository(DEMO, Path(name), group)
            model = repository / "detector" / "1" / "model.py"
            model.write_text(model.read_text() + addition)
            table += rows(load, *compare(repository, images, users, arguments.rounds, arguments.seconds, progress))
    titles = [
        "load",
        "measured with",
        "requests/s",
        "p50 ms",
        "p99 ms",
        "server, CPU ms per request",
        "more CPU ms per request",
    ]
    console.print(f"| {' | '.join(titles)} |\n|{' --- |' * len(titles)}")
    for line in table:
        console.print(line, soft_wrap=True)


if __name__ == "__main__":
    main()
