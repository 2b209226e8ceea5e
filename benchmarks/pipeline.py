"""What the pipeline costs on top of the detector, on this machine's CPU, in one run.

    python benchmarks/pipeline.py

Three contestants take turns on the same cores, so that a noisy machine treats them alike:

- bare: as many processes as the published detector has instances, each looping over decoded pixels in OpenVINO;
- ours: the deployed ensemble over gRPC;
- tutorial: the same weights as most tutorials serve them (`tutorial_repository`), over gRPC, with the same client.

The operating system gives the CPU time of each process, and so of each stage. Within the detector's process a stopwatch
(`stopwatch.py`) separates the inference from the code around it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import shutil
import tempfile
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
from fixtures import DEMO, ROOT, encoded_boards, our_repository, tutorial_repository
from rich.console import Console
from rich.table import Table

from triptych import DetectionClient, TritonServer
from triptych.machine import available_cores
from triptych.model_config import read_detector_spec
from triptych.runtimes import open_runtime
from triptych.serving.preflight import Ports
from triptych.vision.letterbox import preprocess
from triptych_build.publish.target import InstanceGroup

LONGEST_OVERHEAD_MS = 4.5
LEAST_THROUGHPUT = 0.8


@dataclass
class Turns:
    """The work of one contestant over all of its turns.

    Attributes:
        images: images done.
        seconds: wall-clock time.
        cpu_s: CPU seconds by the process's role.
        latencies_ms: by the client's clock.
        rates: images a second of each turn.
    """

    images: int = 0
    seconds: float = 0.0
    cpu_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    latencies_ms: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)

    def add(self, images: int, seconds: float) -> None:
        self.images += images
        self.seconds += seconds
        self.rates.append(images / seconds)

    def cpu_ms(self, *roles: str) -> float:
        """Return CPU milliseconds per image, of some roles or of all."""
        return sum(self.cpu_s[role] for role in (roles or tuple(self.cpu_s))) / self.images * 1000


def bare_loop(model: Path, pixels_file: Path, threads: int, seconds: float, barrier: Any, results: Any) -> None:
    """Run one process of the bare contestant."""
    pixels = np.load(pixels_file)
    runtime = open_runtime("openvino", model, threads=threads)
    for row in pixels[:3]:
        runtime.detect(row[None])
    barrier.wait()
    images, cpu, started = 0, time.process_time(), time.perf_counter()
    while time.perf_counter() - started < seconds:
        runtime.detect(pixels[images % len(pixels)][None])
        images += 1
    results.put((images, time.perf_counter() - started, time.process_time() - cpu))


def turn_of_bare(turns: Turns, model: Path, pixels_file: Path, group: InstanceGroup, seconds: float) -> None:
    """Let the bare contestant run in processes of its own."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(group.count), context.Queue()
    arguments = (model, pixels_file, group.threads, seconds, barrier, results)
    processes = [context.Process(target=bare_loop, args=arguments) for _ in range(group.count)]
    for process in processes:
        process.start()
    done = [results.get() for _ in processes]
    for process in processes:
        process.join()
    turns.add(sum(images for images, _, _ in done), max(elapsed for _, elapsed, _ in done))
    turns.cpu_s["inference"] += sum(cpu for _, _, cpu in done)


def put_stopwatch(repository: Path, watch: str) -> Path:
    """Make the detector's processes add up the CPU time of their inferences in files."""
    version = repository / "detector" / "1"
    shutil.copyfile(ROOT / "benchmarks" / "stopwatch.py", version / "stopwatch.py")
    model = version / "model.py"
    model.write_text(f"{model.read_text()}\n\nimport stopwatch\n{watch}\n")
    return repository


def cpu_by_role(server: TritonServer, repository: Path) -> dict[str, float]:
    """Return CPU seconds so far: inference, the rest of each model, the server, and this process as the client."""

    def seconds(pid: int) -> float:
        times = psutil.Process(pid).cpu_times()
        return times.user + times.system

    processes = server.model_processes()
    roles = {name: sum(map(seconds, pids)) for name, pids in processes.items()}
    files = [repository / "detector" / "1" / f"inference-{pid}" for pid in processes["detector"]]
    roles["inference"] = sum(float(file.read_text()) for file in files if file.exists())
    roles["detector"] -= roles["inference"]
    return {**roles, "server": seconds(server.pid), "client": time.process_time()}


def turn_of_ensemble(
    turns: Turns, server: TritonServer, repository: Path, images: list[bytes], concurrency: int, seconds: float
) -> None:
    """Let an ensemble answer users that each wait for their answer."""
    with DetectionClient(server.grpc_address, timeout_s=60) as client, ThreadPoolExecutor(concurrency) as pool:
        list(pool.map(client.detect, images[: 2 * concurrency]))
        before, started, stop = cpu_by_role(server, repository), time.perf_counter(), threading.Event()

        def user(number: int) -> list[float]:
            latencies, index = [], number
            while not stop.is_set():
                sent = time.perf_counter()
                client.detect(images[index % len(images)])
                latencies.append((time.perf_counter() - sent) * 1000)
                index += concurrency
            return latencies

        users = [pool.submit(user, number) for number in range(concurrency)]
        time.sleep(seconds)
        stop.set()
        latencies = [latency for future in users for latency in future.result()]
        elapsed, after = time.perf_counter() - started, cpu_by_role(server, repository)
    turns.add(len(latencies), elapsed)
    turns.latencies_ms += latencies
    for role, used in after.items():
        turns.cpu_s[role] += used - before[role]


def report(bare: Turns, ours: Turns, tutorial: Turns, console: Console) -> dict[str, object]:
    """Print the tables, and return the figures."""
    throughput = Table(title="Throughput, and CPU ms an image", title_justify="left")
    for column in ("", "images/s", "of bare", "p50 ms", "p95 ms", "p99 ms", "inference", "all"):
        throughput.add_column(column, justify="left" if not column else "right")
    rate = median(bare.rates)
    contestants = (("bare loop", bare), ("Triptych", ours), ("tutorial", tutorial))
    for name, turns in contestants:
        percentiles = [
            f"{np.percentile(turns.latencies_ms, p):.1f}" if turns.latencies_ms else "" for p in (50, 95, 99)
        ]
        throughput.add_row(
            name,
            f"{median(turns.rates):.1f}",
            f"{median(turns.rates) / rate:.0%}",
            *percentiles,
            f"{turns.cpu_ms('inference'):.2f}",
            f"{turns.cpu_ms():.2f}",
        )
    console.print(throughput)

    stages = Table(title="CPU ms a request that is not inference", title_justify="left")
    stages.add_column("where")
    figures: dict[str, dict[str, float]] = {}
    for name, turns in (("Triptych", ours), ("tutorial", tutorial)):
        stages.add_column(name, justify="right")
        figures[name] = {
            "preprocess (decode, letterbox)": turns.cpu_ms("preprocess"),
            "detector's process around the inference": turns.cpu_ms("detector"),
            "postprocess (suppression, boxes)": turns.cpu_ms("postprocess"),
            "server (transport, ensemble)": turns.cpu_ms("server"),
            "client": turns.cpu_ms("client"),
        }
    for where in figures["Triptych"]:
        stages.add_row(where, *(f"{column[where]:.2f}" for column in figures.values()))
    stages.add_section()
    totals = {name: sum(column.values()) for name, column in figures.items()}
    stages.add_row("together", *(f"{total:.2f}" for total in totals.values()))
    console.print(stages)
    share = median(ours.rates) / rate
    for text, good in (
        (
            f"throughput is {share:.0%} of the bare loop's; at least {LEAST_THROUGHPUT:.0%} is wanted",
            share >= LEAST_THROUGHPUT,
        ),
        (
            f"{totals['Triptych']:.2f} ms of CPU a request are not inference; {LONGEST_OVERHEAD_MS} are wanted at most",
            totals["Triptych"] <= LONGEST_OVERHEAD_MS,
        ),
    ):
        console.print(f"[{'green' if good else 'red'}]{'met' if good else 'missed'}[/]: {text}")
    return {
        "images_per_s": {"bare": rate, "triptych": median(ours.rates), "tutorial": median(tutorial.rates)},
        "inference_cpu_ms": {name: turns.cpu_ms("inference") for name, turns in contestants},
        "other_cpu_ms": figures,
        "rates": {"bare": bare.rates, "triptych": ours.rates, "tutorial": tutorial.rates},
    }


def main() -> None:
    """Measure, print the tables, and write the figures on request."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", type=Path, default=DEMO, help="source ONNX, raw head")
    parser.add_argument("--concurrency", type=int, default=4, help="requests in flight (4)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contestant (3)")
    parser.add_argument("--seconds", type=float, default=8, help="length of a turn (8)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here as well")
    arguments = parser.parse_args()
    console = Console()
    group = InstanceGroup.for_cores(available_cores())
    with tempfile.TemporaryDirectory(prefix="triptych-benchmark-") as name:
        scratch = Path(name)
        ours_at = put_stopwatch(
            our_repository(arguments.model, scratch, group),
            "from triptych.runtimes.openvino import OpenVinoRuntime\nstopwatch.watch(OpenVinoRuntime, 'detect')",
        )
        tutorial_at = put_stopwatch(
            tutorial_repository(arguments.model, scratch, group), "stopwatch.watch(TritonPythonModel, 'infer')"
        )
        images = encoded_boards(16)
        console.print(f"{len(images)} boards of {np.mean([len(image) for image in images]) / 1000:.0f} KB")
        np.save(scratch / "pixels.npy", preprocess(images, read_detector_spec(ours_at)).pixels)
        bare, ours, tutorial = Turns(), Turns(), Turns()
        with (
            TritonServer(ours_at, ports=Ports.free(), log_path=scratch / "ours.log") as our_server,
            TritonServer(tutorial_at, ports=Ports.free(), log_path=scratch / "tutorial.log") as tutorial_server,
        ):
            for number in range(arguments.rounds):
                console.print(f"round {number + 1} of {arguments.rounds}", style="dim")
                turn_of_bare(bare, scratch / "adapted.onnx", scratch / "pixels.npy", group, arguments.seconds)
                turn_of_ensemble(ours, our_server, ours_at, images, arguments.concurrency, arguments.seconds)
                turn_of_ensemble(
                    tutorial, tutorial_server, tutorial_at, images, arguments.concurrency, arguments.seconds
                )
    figures = report(bare, ours, tutorial, console)
    if arguments.json:
        environment = {
            "date": date.today().isoformat(),
            "cpu": platform.processor() or platform.machine(),
            "cores": available_cores(),
            "concurrency": arguments.concurrency,
            "instances": group.count,
            "threads": group.threads,
            "versions": {name: version(name) for name in ("triptych", "openvino", "nvidia-pytriton", "numpy")},
        }
        arguments.json.write_text(json.dumps({**environment, **figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
