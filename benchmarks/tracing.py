"""What it costs a server to be watched: traces, as `python loadtest` switches them on.

    python benchmarks/tracing.py

Windows take turns: nothing, traces, nothing, another server, nothing, traces… Each that watches is
held against the mean of the two beside it, so that a machine whose speed drifts treats them alike; "another server" is
the control, started as the first one is and not watched either. What it shows above or below 1 is noise, and what
servers differ by.

Two loads: the demo, and an ensemble whose detector answers at once, with small images and more users, whose many
requests a second are about the most that an ensemble on the Python backend can be asked. The clients share the cores
with the server. CPU time is that of the server with its models' processes; with traces, that of writing them to their
files too.
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
from rich.console import Console
from scipy import stats

from triptych import DetectionClient
from triptych.machine import available_cores, cpu_model
from triptych.measure.traces import Tracing
from triptych.serving.server import Ports, TritonServer

ROOT = Path(__file__).parent.parent

import publish
from pipeline import encoded_boards, our_repository

PACKAGES = ("triptych", "nvidia-pytriton", "openvino", "tritonclient", "grpcio", "numpy")

AT_ONCE = """

import numpy as np


def _at_once(self, request):
    images = pb_utils.get_input_tensor_by_name(request, "pixels").as_numpy().shape[0]
    return pb_utils.InferenceResponse([pb_utils.Tensor("candidates", np.zeros((images, 300, 6), np.float32))])


TritonPythonModel.respond = _at_once
"""


@dataclass(frozen=True)
class Turn:
    """One window.

    Attributes:
        rate_per_s: requests answered a second.
        p50_ms: by the client's clock.
        p99_ms: the same; of the demo's few requests in a window, nearly the longest.
        cpu_ms: CPU time a request, of the server with its models' processes.
    """

    rate_per_s: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float


@dataclass(frozen=True)
class Spread:
    """The median over rounds, and its 95% confidence interval, from their order alone."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least six; what others do to the machine in one round does not move it."""
        interval = stats.quantile_test(values, p=0.5).confidence_interval(0.95)
        return cls(float(np.median(values)), float(interval.low), float(interval.high))

    def cell(self, digits: int) -> str:
        return f"{self.median:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


def turn(server: TritonServer, traced: bool, images: list[bytes], users: int, seconds: float) -> Turn:
    """One window of users that each wait for their answer."""
    stop = threading.Event()

    def user(number: int) -> list[float]:
        latencies = []
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
        latencies = [latency for each in running for latency in each.result()]
        elapsed_s = time.perf_counter() - started
        if traced and len(tracing.stop(len(latencies))) < len(latencies):
            sys.exit("not every request left a trace")
        cpu_s = cpu_seconds(server) - cpu_s
    p50_ms, p99_ms = (float(each) for each in np.percentile(latencies, (50, 99)))
    return Turn(len(latencies) / elapsed_s, p50_ms, p99_ms, cpu_s / len(latencies) * 1000)


def cpu_seconds(server: TritonServer) -> float:
    """CPU time so far of the server and its models' processes."""
    ids = [server.pid, *(each for processes in server.model_processes().values() for each in processes)]
    times = [psutil.Process(each).cpu_times() for each in ids]
    return sum(each.user + each.system for each in times)


def rows(load: str, plain: list[Turn], watched: dict[str, list[Turn]]) -> list[str]:
    """The rows of one load; the n-th window of the k-th way to watch lies between two of `plain`."""
    figures = [field.name for field in fields(Turn)]
    medians = [float(np.median([getattr(each, name) for each in plain])) for name in figures]
    lines = [f"| {load} | nothing | {' | '.join(f'{median:.2f}' for median in medians)} | |"]
    for k, (name, turns) in enumerate(watched.items()):
        beside = [(plain[n * len(watched) + k], plain[n * len(watched) + k + 1]) for n in range(len(turns))]

        def ratios(of: str, turns: list[Turn] = turns, beside: list[tuple[Turn, Turn]] = beside) -> Spread:
            means = [(getattr(before, of) + getattr(after, of)) / 2 for before, after in beside]
            return Spread.of([getattr(each, of) / mean for each, mean in zip(turns, means, strict=True)])

        more = [
            each.cpu_ms - (before.cpu_ms + after.cpu_ms) / 2
            for each, (before, after) in zip(turns, beside, strict=True)
        ]
        cells = [ratios(of).cell(3) for of in figures]
        lines.append(f"| | {name} | {' | '.join(cells)} | {Spread.of(more).cell(2)} |")
    return lines


def compare(repository: Path, images: list[bytes], users: int, rounds: int, seconds: float, console: Console) -> tuple:
    """The windows of one load: those that nobody watches, and the others by name."""
    with ExitStack() as stack:

        def serve(name: str) -> TritonServer:
            log = repository.parent / f"{name}.log"
            return stack.enter_context(TritonServer(repository, ports=Ports.free(), log_path=log))

        first, second = serve("first"), serve("second")
        ways = {
            "traces": (first, True),
            "another server, not watched": (second, False),
        }
        for server in (first, second):
            turn(server, False, images, users, 1)
        plain, watched = [turn(first, False, images, users, seconds)], {name: [] for name in ways}
        for number in range(rounds):
            for name, (server, traced) in ways.items():
                watched[name].append(turn(server, traced, images, users, seconds))
                plain.append(turn(first, False, images, users, seconds))
            rates = [f"{name} {turns[-1].rate_per_s:.1f}" for name, turns in (("nothing", plain), *watched.items())]
            console.print(f"round {number + 1} of {rounds}: requests/s {', '.join(rates)}", style="dim")
    return plain, watched


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=16, help="windows of each way to watch, at least 6 (16)")
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
            group = publish.InstanceGroup.for_cores(available_cores())
            repository = our_repository(ROOT / "demo" / "pcb.onnx", Path(name), group)
            model = repository / "detector" / "1" / "model.py"
            model.write_text(model.read_text() + addition)
            table += rows(load, *compare(repository, images, users, arguments.rounds, arguments.seconds, progress))
    titles = [
        "load",
        "watched by",
        "requests/s",
        "p50 ms",
        "p99 ms",
        "server, CPU ms a request",
        "more CPU ms a request",
    ]
    console.print(f"| {' | '.join(titles)} |\n|{' --- |' * len(titles)}")
    for line in table:
        console.print(line, soft_wrap=True)


if __name__ == "__main__":
    main()
