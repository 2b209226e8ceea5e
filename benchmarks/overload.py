"""What becomes of a server that gets three times what it can answer: with limits on its queues, and without.

    python benchmarks/overload.py --seconds 60

Both servers take turns in one run. First, a few users that wait for their answers show what it can answer: its
capacity. Then requests come at three times that rate, whatever becomes of them, each with a deadline. When the clients
of all of them have given up or have their answers, one more request comes, alone. It waits for what the server still
works on. Without limits means as before there were any: no
policy for a queue, and no time that a client allows for it.
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import cv2
import numpy as np
from fixtures import DEMO, encoded_boards, our_repository
from rich.console import Console
from rich.table import Table
from tritonclient.grpc import model_config_pb2

from triptych import AsyncDetectionClient, TritonServer
from triptych.contract import DETECTOR, PREPROCESS
from triptych.errors import DeadlineExceeded, RequestError, ServerOverloaded
from triptych.machine import available_cores, cpu_model
from triptych.serving.preflight import Ports
from triptych_build.publish.target import InstanceGroup

LONE_TIMEOUT_S = 300.0

STEADY = """

import time

import numpy as np


def _steady(self, request):
    images = pb_utils.get_input_tensor_by_name(request, "pixels").as_numpy().shape[0]
    time.sleep(images * {seconds})
    candidates = stamp(np.zeros((images, 300, 6), np.float32), self.names)
    return pb_utils.InferenceResponse([pb_utils.Tensor("candidates", candidates)])


TritonPythonModel.respond = _steady
"""


@dataclass(frozen=True)
class Call:
    """How one request ended: `answered`, or the name of an error; and after how long."""

    outcome: str
    latency_ms: float


@dataclass(frozen=True)
class Overload:
    """One server under too much load.

    Attributes:
        capacity_per_s: what it answers to users that wait.
        sent_per_s: how fast requests came then.
        seconds: for how long.
        calls: what became of them.
        executions: how many images the detector worked on.
        lone: the request at their end.
    """

    capacity_per_s: float
    sent_per_s: float
    seconds: float
    calls: Sequence[Call]
    executions: int
    lone: Call

    def latencies_ms(self, outcome: str) -> list[float]:
        """Return how long the requests took that ended so."""
        return [call.latency_ms for call in self.calls if call.outcome == outcome]

    @property
    def goodput(self) -> float:
        """Answers in time a second, as a share of the capacity."""
        return len(self.latencies_ms("answered")) / self.seconds / self.capacity_per_s


async def call(client: AsyncDetectionClient, image: bytes, timeout_s: float) -> Call:
    """Send one request and wait for how it ends."""
    began = time.perf_counter()
    try:
        await client.detect(image, timeout_s=timeout_s)
        outcome = "answered"
    except RequestError as error:
        outcome = type(error).__name__
    return Call(outcome, (time.perf_counter() - began) * 1000)


async def capacity(client: AsyncDetectionClient, images: Sequence[bytes], users: int, seconds: float) -> float:
    """Return how many requests a second are answered to users that each wait for their answer."""

    async def user(number: int, end: float) -> int:
        answered = 0
        while time.perf_counter() < end:
            answered += (await call(client, images[(number + answered) % len(images)], 60.0)).outcome == "answered"
        return answered

    await asyncio.gather(*(user(number, time.perf_counter() + 1.0) for number in range(users)))  # a warm-up
    began = time.perf_counter()
    answered = await asyncio.gather(*(user(number, began + seconds) for number in range(users)))
    return sum(answered) / (time.perf_counter() - began)


async def overload(address: str, images: Sequence[bytes], options: argparse.Namespace) -> Overload:
    """Measure a server's capacity, and then send it too much."""
    async with AsyncDetectionClient(address, retries=0) as client:
        capacity_per_s = await capacity(client, images, options.users, options.capacity_s)
        rate_per_s = options.times * capacity_per_s
        before = (await client.statistics())[DETECTOR.name].inferences
        began, calls = time.perf_counter(), []
        for number in range(round(rate_per_s * options.seconds)):
            await asyncio.sleep(max(0.0, began + number / rate_per_s - time.perf_counter()))
            calls.append(asyncio.create_task(call(client, images[number % len(images)], options.timeout_s)))
        seconds = time.perf_counter() - began
        done = await asyncio.gather(*calls)
        lone = await call(client, images[0], LONE_TIMEOUT_S)
        executions = (await client.statistics())[DETECTOR.name].inferences - before - 1
    return Overload(capacity_per_s, len(done) / seconds, seconds, done, executions, lone)


def without_limits(config: model_config_pb2.ModelConfig) -> None:
    """Take the limits off a stage that gathers no batches."""
    config.ClearField("dynamic_batching")


@contextmanager
def served(directory: Path, *, limits: bool, steady_ms: float) -> Iterator[TritonServer]:
    """Serve the demo, with limits or as it was served before there were any."""
    directory.mkdir()
    repository = our_repository(DEMO, directory, InstanceGroup.for_cores(available_cores()))
    if steady_ms:
        detector = repository / DETECTOR.name / "1" / "model.py"
        detector.write_text(detector.read_text() + STEADY.format(seconds=steady_ms / 1000))
    with TritonServer(repository, ports=Ports.free(), log_path=directory / "log") as server:
        if limits:
            yield server
            return
        for stage in (PREPROCESS, DETECTOR):
            server.control.change(stage.name, without_limits, 60.0)
        with patch("triptych.wire.session.limit_wait"):
            yield server


def percentiles(latencies_ms: Sequence[float]) -> str:
    """Return the number of requests, and how long half of them and all but a hundredth took."""
    if not latencies_ms:
        return "0"
    p50, p99 = np.percentile(latencies_ms, (50, 99))
    return f"{len(latencies_ms)} ({p50:.0f}, {p99:.0f} ms)"


def report(results: Sequence[tuple[str, Overload]], console: Console) -> None:
    """Print what became of the requests of every turn."""
    table = Table(title="Under too much load; in brackets p50 and p99", title_justify="left")
    table.add_column("")
    for name, _ in results:
        table.add_column(name, justify="right")
    known = ("answered", ServerOverloaded.__name__, DeadlineExceeded.__name__)

    def others(result: Overload) -> str:
        return str(sum(call.outcome not in known for call in result.calls))

    for title, cell in (
        ("capacity, answers/s", lambda result: f"{result.capacity_per_s:.1f}"),
        ("sent, requests/s", lambda result: f"{result.sent_per_s:.1f}"),
        ("answered", lambda result: percentiles(result.latencies_ms(known[0]))),
        ("refused", lambda result: percentiles(result.latencies_ms(known[1]))),
        ("no answer in time", lambda result: percentiles(result.latencies_ms(known[2]))),
        ("failed otherwise", others),
        ("answered, of capacity", lambda result: f"{result.goodput:.0%}"),
        ("detector's images for nobody", lambda r: str(max(0, r.executions - len(r.latencies_ms(known[0]))))),
        ("the next lone request, ms", lambda result: f"{result.lone.latency_ms:.0f} {result.lone.outcome}"),
    ):
        table.add_row(title, *(cell(result) for _, result in results))
    console.print(table)


def main() -> None:
    """Measure both in turn, and print what became of the requests."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--times", type=float, default=3, help="the load, in capacities (3)")
    parser.add_argument("--seconds", type=float, default=15, help="how long it lasts (15)")
    parser.add_argument("--timeout-s", type=float, default=2, help="each request's deadline (2)")
    parser.add_argument("--users", type=int, default=8, help="users whose answers are the capacity (8)")
    parser.add_argument("--capacity-s", type=float, default=8, help="how long the capacity is measured (8)")
    parser.add_argument("--rounds", type=int, default=1, help="turns of each server (1)")
    parser.add_argument(
        "--steady-ms",
        type=float,
        default=0,
        help="a detector that takes so long and no CPU, for a machine that is busy",
    )
    parser.add_argument("--full-hd", action="store_true", help="send 1920x1080 instead of 640x640")
    options = parser.parse_args()
    images, console = encoded_boards(8), Console()
    if options.full_hd:
        scaled = [cv2.resize(cv2.imdecode(np.frombuffer(one, np.uint8), 1), (1920, 1080)) for one in images]
        images = [cv2.imencode(".jpg", image)[1].tobytes() for image in scaled]
    console.print(f"{cpu_model() or platform.machine()}, {available_cores()} cores; {options.seconds:g} s of overload")
    results = []
    with tempfile.TemporaryDirectory(prefix="triptych-benchmark-") as name:
        for number in range(options.rounds):
            for limits in (False, True):
                title = "with limits" if limits else "without"
                directory = Path(name) / f"{number}-{limits}"
                with served(directory, limits=limits, steady_ms=options.steady_ms) as server:
                    results.append((title, asyncio.run(overload(server.grpc_address, images, options))))
                console.print(f"round {number + 1}, {title}: {results[-1][1].goodput:.0%} of capacity", style="dim")
    report(results, console)


if __name__ == "__main__":
    main()
