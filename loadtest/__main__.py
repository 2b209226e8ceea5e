"""A headless load test: Locust's users on one side, the server's own statistics on the other, the same window.

    python loadtest --images DIR --users 4 --duration 10

Exit codes: 0 every request succeeded, 1 some failed or the server could not be reached.
"""

from __future__ import annotations

from locustfile import DetectionUser  # first: it imports Locust, which patches the standard library

import argparse  # isort: skip
import sys
import time
from collections import Counter
from pathlib import Path

import gevent
from locust.env import Environment
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from triptych import DetectionClient
from triptych.console import run
from triptych.errors import ImageError
from triptych.images import image_files
from triptych.stats import Window, owner, summary_line, window_table

REQUEST_TIMEOUT_S = 10
"""How long a request in flight may take to end once its phase is over."""


class Recorder:
    """Latencies of the requests that succeeded, and failures by kind."""

    def __init__(self) -> None:
        self.latencies_ms: list[float] = []
        self.failures: Counter[str] = Counter()

    def __call__(self, response_time: float, exception: BaseException | None, **_other: object) -> None:
        """Take one request from Locust's event."""
        if exception is None:
            self.latencies_ms.append(response_time)
        else:
            self.failures[f"{type(exception).__name__}: {exception}"] += 1


def drive(
    environment: Environment, users: int, seconds: float, progress: Progress, label: str
) -> tuple[Recorder, float]:
    """Run the users for so long, and let what is in flight end; what was recorded, and the seconds it took."""
    recorder = Recorder()
    environment.events.request.add_listener(recorder)
    bar = progress.add_task(label, total=seconds)
    started = time.perf_counter()
    environment.runner.start(users, spawn_rate=users)
    while (elapsed := time.perf_counter() - started) < seconds:
        progress.update(bar, completed=elapsed)
        gevent.sleep(min(0.2, seconds - elapsed))
    environment.runner.stop()
    progress.update(bar, completed=seconds)
    environment.events.request.remove_listener(recorder)
    return recorder, time.perf_counter() - started


def measure(
    address: str, images: list[bytes], users: int, warmup_s: float, duration_s: float, console: Console
) -> tuple[Window, Counter[str]]:
    """Warm up, then measure one window between two snapshots that nothing in flight can blur."""
    environment = Environment(user_classes=[DetectionUser], host=address, stop_timeout=REQUEST_TIMEOUT_S)
    environment.images = images
    environment.create_local_runner()
    columns = (TextColumn("{task.description:>8}"), BarColumn(), TimeElapsedColumn())
    with DetectionClient(address) as client, Progress(*columns, console=console) as progress:
        drive(environment, users, warmup_s, progress, "warm up")
        before = client.statistics()
        recorder, seconds = drive(environment, users, duration_s, progress, "measure")
        after = client.statistics()
    environment.runner.quit()
    return Window.between(before, after, recorder.latencies_ms, seconds), recorder.failures


def main() -> None:
    """Run the load and print what it showed."""
    parser = argparse.ArgumentParser(prog="python loadtest", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="images to send, in turn")
    parser.add_argument("--address", default="127.0.0.1:8001", help="the server's gRPC address (127.0.0.1:8001)")
    parser.add_argument("--users", type=int, default=4, help="users that each wait for their answer (4)")
    parser.add_argument("--warmup", type=float, default=2, metavar="S", help="seconds before anything counts (2)")
    parser.add_argument("--duration", type=float, default=10, metavar="S", help="seconds that are measured (10)")
    arguments = parser.parse_args()
    images = [path.read_bytes() for path in image_files(arguments.images)]
    if not images:
        raise ImageError(f"there are no images in {arguments.images}")
    console = Console()
    window, failures = measure(
        arguments.address, images, arguments.users, arguments.warmup, arguments.duration, console
    )
    console.print(summary_line(window), soft_wrap=True, highlight=False)
    console.print(window_table(window))
    console.print(owner(window), soft_wrap=True, highlight=False)
    for failure, count in failures.most_common():
        console.print(f"[red]{count} failed:[/red] {failure}", soft_wrap=True)
    if failures or not window.latencies_ms:
        sys.exit(1)


if __name__ == "__main__":
    run(main)
