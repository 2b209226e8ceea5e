"""A headless load test: what clients wait for, and who takes that time, over exactly the same window.

    python loadtest --images DIR --users 4 --duration 10 --out RUN.json

Exit codes: 0 every request succeeded and every limit was kept, 1 otherwise or when the server could not be reached.
"""

from __future__ import annotations

from locustfile import REQUEST_TIMEOUT_S, ArrivalUser, DetectionUser  # first: it imports Locust, which patches

import argparse  # isort: skip
import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import gevent
import grpc
from locust.env import Environment
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from recorder import Recorder
from triptych import DetectionClient, attribution, repository, run_file
from triptych.attribution import Headroom, Requests
from triptych.console import run
from triptych.contract import DETECTOR
from triptych.errors import ContractError, ImageError, ServerStartError
from triptych.images import image_files
from triptych.model_control import ModelControl
from triptych.run_file import ClientSide, ImageSet, Run, ServedDetector, Workload
from triptych.stats import Snapshot, Window, summary_line, window_table
from triptych.traces import TracedRequest, Tracing

WORKERS_TIMEOUT_S = 30
"""How long other processes that share the load may take to start, and to end a phase."""

STATISTICS_TRIES = 20
"""How often the server's counters are read until they rest; others may use it all the while."""

BUDGET_AT = "p95"
"""The percentile that a latency budget is held against."""


@dataclass(frozen=True)
class Measured:
    """One measured window."""

    started: str
    window: Window
    recorder: Recorder
    traced: list[TracedRequest]


@contextlib.contextmanager
def load_generator(arguments: argparse.Namespace, images: list[bytes]) -> Iterator[Environment]:
    """Locust's environment with a runner: this process alone, or a master of several others."""
    environment = Environment(
        user_classes=[ArrivalUser if arguments.rate else DetectionUser],
        host=arguments.address,
        stop_timeout=REQUEST_TIMEOUT_S + 1,
    )
    environment.images = images
    environment.rate, environment.poisson = arguments.rate / arguments.processes, arguments.poisson
    workers = []
    try:
        if arguments.processes == 1:
            environment.create_local_runner()
        else:
            runner = environment.create_master_runner("127.0.0.1", 0)
            command = [sys.executable, "-m", "locust", "-f", str(Path(__file__).with_name("locustfile.py"))]
            command += ["--worker", "--master-host", "127.0.0.1", "--master-port", str(runner.server.port)]
            command += ["--images", str(arguments.images), "--rate", str(environment.rate)]
            command += ["--poisson"] if arguments.poisson else []
            quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            workers = [subprocess.Popen(command, **quiet) for _ in range(arguments.processes)]
        yield environment
    finally:
        if environment.runner is not None:
            environment.runner.quit()
        for worker in workers:
            worker.terminate()
            worker.wait()


def await_workers(done: Callable[[], bool], what: str) -> None:
    """Wait until the other processes have done something."""
    deadline = time.monotonic() + WORKERS_TIMEOUT_S
    while not done():
        if time.monotonic() > deadline:
            raise ServerStartError(f"the load test's other processes did not {what} within {WORKERS_TIMEOUT_S} s")
        gevent.sleep(0.05)


def drive(
    environment: Environment, arguments: argparse.Namespace, seconds: float, progress: Progress, label: str
) -> tuple[Recorder, float]:
    """Run the users for so long, and let what is in flight end; what was recorded, and the seconds it took."""
    recorder, runner = Recorder(), environment.runner

    def take(data: dict, **_other: object) -> None:
        recorder.merge(data["triptych"])

    if arguments.processes > 1:
        event, listener = environment.events.worker_report, take
        # After a phase, Locust's workers are ready again only when they have slept for its stop_timeout.
        await_workers(lambda: len(runner.clients.ready) == arguments.processes, "start")
    else:
        event, listener = environment.events.request, recorder
    event.add_listener(listener)
    bar = progress.add_task(label, total=seconds)
    started = time.perf_counter()
    users = arguments.processes if arguments.rate else arguments.users
    runner.start(users, spawn_rate=users)
    while (elapsed := time.perf_counter() - started) < seconds:
        progress.update(bar, completed=elapsed)
        gevent.sleep(min(0.2, seconds - elapsed))
    runner.stop()
    if arguments.processes > 1:  # a worker's last report comes before it says that it has stopped
        await_workers(lambda: not runner.clients, "end")
    progress.update(bar, completed=seconds)
    event.remove_listener(listener)
    return recorder, max(0.0, recorder.last_s - started)


def settled_statistics(client: DetectionClient) -> Snapshot:
    """The server's counters at rest: it counts a request a moment after the client has its answer."""
    snapshot = client.statistics()
    for _ in range(STATISTICS_TRIES):
        gevent.sleep(0.1)
        before, snapshot = snapshot, client.statistics()
        if snapshot == before:
            break
    return snapshot


def measure(arguments: argparse.Namespace, images: list[bytes], console: Console) -> Measured:
    """Warm up, then measure one window between two snapshots that nothing in flight can blur."""
    columns = (TextColumn("{task.description:>8}"), BarColumn(), TimeElapsedColumn())
    with (
        load_generator(arguments, images) as environment,  # first: it forks, which no connection survives
        DetectionClient(arguments.address) as client,
        Tracing(arguments.address) as tracing,
    ):
        client.statistics()  # if nobody is there it is known now, before the users start
        with Progress(*columns, console=console) as progress:
            drive(environment, arguments, arguments.warmup, progress, "warm up")
            traces = not arguments.no_traces and tracing.start()
            before, started = settled_statistics(client), datetime.now(timezone.utc)
            recorder, seconds = drive(environment, arguments, arguments.duration, progress, "measure")
            after = settled_statistics(client)
            traced = tracing.stop(len(recorder.latencies_ms)) if traces else []
    window = Window.between(before, after, list(recorder.latencies_ms.values()), seconds)
    return Measured(started.isoformat(timespec="seconds"), window, recorder, traced)


def served_detector(address: str, model_repository: Path | None) -> ServedDetector | None:
    """The detector as the server serves it, with its manifest if its repository is given."""
    control = ModelControl(address)
    try:
        numbers = [int(version) for (model, version) in control.served() if model == DETECTOR.name]
        if not numbers:
            return None
        config = control.config(DETECTOR.name)
    except grpc.RpcError:
        return None
    finally:
        control.close()
    found = repository.versions(model_repository) if model_repository else []
    manifests = {version.number: version.manifest or None for version in found}
    return ServedDetector(
        version=max(numbers),
        backend=config.backend or config.platform,
        instances=sum(group.count for group in config.instance_group),
        max_batch=config.max_batch_size,
        manifest=manifests.get(max(numbers)),
    )


def describe(
    arguments: argparse.Namespace, images: list[bytes], machine: run_file.Environment, measured: Measured
) -> Run:
    """The run, with where its time went."""
    window, recorder = measured.window, measured.recorder
    loop = ("poisson" if arguments.poisson else "constant") if arguments.rate else "closed"
    requests = Requests.join(measured.traced, recorder.latencies_ms)
    with DetectionClient(arguments.address) as client:
        versions = {**machine.versions, "triton": client.server_version()}
    return Run(
        started=measured.started,
        workload=Workload(
            loop=loop,
            users=0 if arguments.rate else arguments.users,
            rate_per_s=arguments.rate or None,
            batch=1,
            processes=arguments.processes,
            warmup_s=arguments.warmup,
            duration_s=arguments.duration,
            images=ImageSet.of(images),
        ),
        environment=replace(
            machine,
            versions=versions,
            detector=served_detector(arguments.address, arguments.model_repository),
        ),
        client=ClientSide(recorder.latencies, recorder.failures, window.duration_s),
        server=dict(window.counters),
        attribution=attribution.from_requests(requests) if len(requests) else attribution.from_statistics(window),
    )


def report(result: Run, window: Window, budget_ms: float | None, console: Console) -> None:
    """Print what the run showed."""
    found = result.attribution
    console.print(summary_line(window), soft_wrap=True, highlight=False)
    if found.source == "traces":
        console.print(attribution.attribution_table(found))
    else:
        console.print("Means only, from the server's statistics: there are no traces that can be read here.")
        console.print(window_table(window))
    sentences = [attribution.owner_sentence(breakdown, at) for at, breakdown in found.breakdowns.items()]
    if budget_ms and window.latencies_ms:
        sentences.append(Headroom(budget_ms, window.percentile_ms(95)).sentence(BUDGET_AT))
    for sentence in sentences:
        console.print(sentence, soft_wrap=True, highlight=False)
    for sentence in found.long_tails:
        console.print(f"[yellow]{sentence}[/yellow]", soft_wrap=True, highlight=False)
    if found.source == "traces" and found.requests < len(window.latencies_ms):
        console.print(f"{len(window.latencies_ms) - found.requests} requests left no whole trace", style="yellow")
    for kind, failure in result.client.failures.items():
        console.print(f"[red]{failure.count} failed:[/red] {kind}: {failure.example}", soft_wrap=True)


def broken_limits(arguments: argparse.Namespace, result: Run, window: Window) -> list[str]:
    """A sentence for each limit that the run broke."""
    p95, p99 = window.percentile_ms(95), window.percentile_ms(99)
    rate, failed = result.client.rate_per_s, result.client.failed
    broken = [
        f"{name} is {value:.1f} ms; {limit:g} are allowed"
        for name, value, limit in (
            ("p95", p95, arguments.max_p95_ms),
            ("p99", p99, arguments.max_p99_ms),
            (f"{BUDGET_AT}, against the budget,", p95, arguments.budget_ms),
        )
        if limit is not None and value > limit
    ]
    if failed > arguments.max_failures:
        broken.append(f"{failed} requests failed; {arguments.max_failures} are allowed")
    if arguments.min_rate is not None and rate < arguments.min_rate:
        broken.append(f"{rate:.1f} requests/s were answered; {arguments.min_rate:g} are wanted")
    if not window.latencies_ms:
        broken.append("no request succeeded")
    return broken


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python loadtest", description=__doc__.split("\n", 1)[0])
    add = parser.add_argument
    add("--images", type=Path, required=True, metavar="DIR", help="images to send, in turn")
    add("--address", default="127.0.0.1:8001", help="the server's gRPC address (127.0.0.1:8001)")
    add("--users", type=int, default=4, help="closed loop: users that each wait for their answer (4)")
    add("--rate", type=float, default=0, metavar="N", help="open loop: images a second, due whatever the answers do")
    add("--poisson", action="store_true", help="with --rate: random gaps, exponentially distributed")
    add("--processes", type=int, default=1, help="processes that share the load; more where one is too slow (1)")
    add("--warmup", type=float, default=2, metavar="S", help="seconds before anything counts (2)")
    add("--duration", type=float, default=10, metavar="S", help="seconds that are measured (10)")
    add("--out", type=Path, metavar="RUN", help="write the run to this JSON file")
    add("--model-repository", type=Path, metavar="DIR", help="what the server serves, for the detector's manifest")
    add("--no-traces", action="store_true", help="do not switch the server's traces on; means alone are known then")
    add("--budget-ms", type=float, metavar="MS", help=f"what an answer may take, held against {BUDGET_AT}")
    add("--max-p95-ms", type=float, metavar="MS", help="exit 1 if the p95 is above")
    add("--max-p99-ms", type=float, metavar="MS", help="exit 1 if the p99 is above")
    add("--max-failures", type=int, default=0, metavar="N", help="exit 1 if more requests failed (0)")
    add("--min-rate", type=float, metavar="N", help="exit 1 if fewer requests a second were answered")
    arguments = parser.parse_args()
    if arguments.poisson and not arguments.rate:
        raise ContractError("--poisson needs --rate N: how many requests a second come at random")
    if min(arguments.users, arguments.processes) < 1 or arguments.rate < 0:
        raise ContractError("--users and --processes must be at least 1, and --rate at least 0")
    return arguments


def main() -> None:
    """Run the load and print what it showed."""
    arguments = parse_arguments()
    images = [path.read_bytes() for path in image_files(arguments.images)]
    if not images:
        raise ImageError(f"there are no images in {arguments.images}")
    console = Console()
    machine = run_file.describe_machine(arguments.address)
    measured = measure(arguments, images, console)
    result = describe(arguments, images, machine, measured)
    report(result, measured.window, arguments.budget_ms, console)
    if arguments.out:
        run_file.write(arguments.out, result)
        console.print(f"written to {arguments.out}", soft_wrap=True, highlight=False)
    broken = broken_limits(arguments, result, measured.window)
    for sentence in broken:
        console.print(f"[red]limit broken:[/red] {sentence}", soft_wrap=True, highlight=False)
    if broken:
        sys.exit(1)


if __name__ == "__main__":
    run(main)
