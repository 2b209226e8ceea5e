"""What shared memory saves against gRPC, by the size of a request, in both clients.

    python benchmarks/shared_memory.py

The ways take turns, request by request, in one run on one server. The images are boards of the demo, enlarged: BMPs,
whose decoding costs least for their size, JPEGs with noise in them, and arrays. The ratio is that of the medians, with
the 95% interval of a bootstrap over the rounds. CPU time is that of this process and all processes of the server.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import psutil
from fixtures import DEMO, encoded_boards, our_repository
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from triptych import AsyncDetectionClient, DetectionClient, Detections, TritonServer
from triptych.machine import available_cores, cpu_model
from triptych.serving.preflight import Ports
from triptych.vision.decode import decode
from triptych.wire import shared_memory
from triptych_build.publish.target import InstanceGroup

SIZES = {"0.1 MB": (200, 175), "1 MB": (640, 540), "5 MB": (1440, 1160), "20 MB": (2950, 2250)}
"""Width and height of a BMP or an array of about so many bytes."""

JPEGS = {"0.1 MB": (640, 640, 0), "1 MB": (1920, 1080, 12), "6 MB": (4000, 2500, 20), "16 MB": (5600, 4200, 30)}
"""Width, height and noise of a JPEG of about so many bytes."""

Image = bytes | NDArray[np.uint8]
Send = Callable[[], object]


@dataclass
class Way:
    """One way to send an image, and what its requests took."""

    send: Send
    latencies_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)

    def median_ms(self) -> float:
        """Return the median of the latencies."""
        return float(np.median(self.latencies_ms))


def cases() -> dict[str, Image]:
    """Return the images by their names."""
    board = decode(encoded_boards(1)[0])
    noise = np.random.default_rng(0)
    images: dict[str, Image] = {}
    for name, size in SIZES.items():
        bgr = cv2.resize(board, size)[..., ::-1]
        images[f"BMP, {name}"] = cv2.imencode(".bmp", np.ascontiguousarray(bgr))[1].tobytes()
    for name, (width, height, sigma) in JPEGS.items():
        noisy = cv2.resize(board, (width, height)) + noise.normal(0, sigma, (height, width, 3))
        images[f"JPEG, {name}"] = cv2.imencode(".jpg", noisy.clip(0, 255).astype(np.uint8))[1].tobytes()
    for name, size in SIZES.items():
        images[f"array, {name}"] = cv2.resize(board, size).astype(np.uint8, copy=False)
    return images


def cpu_s() -> float:
    """Return the CPU time of this process and all its children, in seconds."""
    own = psutil.Process()
    times = (process.cpu_times() for process in (own, *own.children(recursive=True)))
    return sum(used.user + used.system for used in times)


def take_turns(ways: Sequence[Way], rounds: int) -> None:
    """Send by each way in turn; the first two rounds do not count."""
    for number in range(rounds + 2):
        for way in ways if number % 2 else reversed(ways):
            used_s, began = cpu_s(), time.perf_counter()
            way.send()
            took_ms = (time.perf_counter() - began) * 1000
            if number >= 2:
                way.latencies_ms.append(took_ms)
                way.cpu_ms.append((cpu_s() - used_s) * 1000)


def ratio(grpc: Way, shared: Way) -> str:
    """Return how many times as long gRPC takes, with its interval."""
    rng, times = np.random.default_rng(0), np.array([grpc.latencies_ms, shared.latencies_ms])
    drawn = times[:, rng.integers(0, times.shape[1], (2000, times.shape[1]))]
    medians = np.median(drawn, axis=2)
    low, high = np.quantile(medians[0] / medians[1], [0.025, 0.975])
    return f"{grpc.median_ms() / shared.median_ms():.2f} ({low:.2f} to {high:.2f})"


def measure(address: str, rounds: int) -> Table:
    """Measure every image by both ways in both clients; shared memory takes small ones too."""
    table = Table("client", "image", "bytes", "gRPC ms", "shared memory ms", "ratio", "CPU ms, gRPC", "CPU ms, shared")
    for column in table.columns[2:]:
        column.justify = "right"
    loop = asyncio.new_event_loop()
    blocking = DetectionClient(address), DetectionClient(address, shared_memory=True)
    later = AsyncDetectionClient(address), AsyncDetectionClient(address, shared_memory=True)

    def detect(client: AsyncDetectionClient, image: Image) -> Detections:
        return loop.run_until_complete(client.detect(image))

    for name, image in cases().items():
        senders: dict[str, list[Send]] = {
            "blocking": [partial(client.detect, image) for client in blocking],
            "asyncio": [partial(detect, client, image) for client in later],
        }
        for kind, sends in senders.items():
            ways = [Way(send) for send in sends]
            take_turns(ways, rounds)
            size = image.nbytes if isinstance(image, np.ndarray) else len(image)
            latencies = (f"{way.median_ms():.1f}" for way in ways)
            used = (f"{np.mean(way.cpu_ms):.0f}" for way in ways)
            table.add_row(kind, name, f"{size:,}", *latencies, ratio(*ways), *used)
    for used_up in blocking:
        used_up.close()
    for used_up_later in later:
        loop.run_until_complete(used_up_later.close())
    loop.close()
    return table


def main() -> None:
    """Start a server, measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30, help="Requests by each way.")
    rounds = parser.parse_args().rounds
    shared_memory.SMALLEST_BYTES = 0
    console = Console(width=140)
    console.print(f"{cpu_model()}, {available_cores()} cores")
    with tempfile.TemporaryDirectory() as directory:
        repository = our_repository(DEMO, Path(directory), InstanceGroup(count=1, threads=1))
        with TritonServer(repository, ports=Ports.free(), log_path=Path(directory) / "log") as server:
            console.print(measure(server.grpc_address, rounds))


if __name__ == "__main__":
    main()
