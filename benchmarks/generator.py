"""What the load generator can do, and what a request costs it: `triptych loadtest` against an instant server.

    python benchmarks/generator.py

The server is another process. It answers every request at once with the same bytes, so that only the client is
measured: Locust, gevent, gRPC, building the request and reading the answer. A load test that comes near these rates or
latencies measures itself.

Each load runs twice, short and long. The CPU time per request comes from the difference of the two, in which starting
up, warming up and writing the run cancel out. The server shares the cores with the load generator, so more cores allow
more.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path

import grpc
import grpc.aio
import numpy as np
import psutil
from fixtures import ROOT, encoded_boards
from rich.console import Console
from tritonclient.grpc import service_pb2

from triptych import DetectionClient
from triptych.contract import DETECTION, DETECTOR, ERROR, PIXELS, POSTPROCESS, PREPROCESS, DetectorSpec
from triptych.machine import available_cores, cpu_model
from triptych.measure.run_file import FORMAT, ClientSide
from triptych.wire.protocol import encode_bytes

PACKAGES = ("locust", "gevent", "grpcio", "protobuf", "tritonclient")


@dataclass(frozen=True)
class Load:
    """One row of the table.

    Attributes:
        users: users of a closed loop; 0 in an open one.
        rate: requests a second of an open loop; 0 in a closed one.
        processes: how many processes share the load.
    """

    users: int = 0
    rate: int = 0
    processes: int = 1

    @property
    def name(self) -> str:
        """What the row is called."""
        return f"{self.rate} requests/s, open" if self.rate else f"{self.users} user{'s' * (self.users > 1)}, closed"

    def arguments(self) -> list[object]:
        """Return the options of `triptych loadtest`."""
        loop = ["--rate", self.rate] if self.rate else ["--users", self.users]
        return [*loop, "--processes", self.processes]


LOADS = (
    *(Load(users=users) for users in (1, 4, 16, 64)),
    *(Load(users=users, processes=2) for users in (4, 16, 64)),
    *(Load(rate=rate) for rate in (250, 500, 1000, 2000)),
    Load(rate=2000, processes=2),
)


@dataclass(frozen=True)
class Spent:
    """What one run of a load took.

    Attributes:
        client: what its clients saw.
        requests: how many requests the server answered, with the warm-up.
        generator_s: CPU seconds of the load generator with all of its processes.
        server_s: CPU seconds of the server.
    """

    client: ClientSide
    requests: int
    generator_s: float
    server_s: float


def instant_answer() -> bytes:
    """Return the ensemble's answer to one image without objects, as it travels."""
    response = service_pb2.ModelInferResponse(model_name=DETECTION.name)
    for tensor in DETECTION.outputs:
        response.outputs.add(name=tensor.name, datatype=tensor.dtype, shape=(1, *tensor.shape))
        raw = encode_bytes([b""]) if tensor == ERROR else np.zeros(tensor.shape, "<i4").tobytes()
        response.raw_output_contents.append(raw)
    return bytes(response.SerializeToString())


def service() -> grpc.GenericRpcHandler:
    """Return the calls that a load test makes. They take and give bytes, so that the server costs hardly anything."""
    answer, answered = instant_answer(), 0

    async def infer(_request: bytes, _context: object) -> bytes:
        nonlocal answered
        answered += 1
        return answer

    async def config(request: bytes, _context: object) -> bytes:
        name = service_pb2.ModelConfigRequest.FromString(request).name
        response = service_pb2.ModelConfigResponse()
        response.config.name, response.config.max_batch_size = name, 16
        if name == DETECTOR.name:
            response.config.input.add(name=PIXELS.name, dims=(640, 640, 3))
            for key, value in DetectorSpec(640, 640, ("nothing",)).to_parameters().items():
                response.config.parameters[key].string_value = value
        return bytes(response.SerializeToString())

    async def statistics(_request: bytes, _context: object) -> bytes:
        response = service_pb2.ModelStatisticsResponse()
        for model in (DETECTION, PREPROCESS, DETECTOR, POSTPROCESS):
            counts = {"inference_count": answered, "execution_count": answered}
            stats = response.model_stats.add(name=model.name, version="1", **counts)
            stats.inference_stats.success.count = answered
        return bytes(response.SerializeToString())

    async def metadata(_request: bytes, _context: object) -> bytes:
        return bytes(service_pb2.ServerMetadataResponse(name="instant", version="none").SerializeToString())

    methods = {"ModelInfer": infer, "ModelConfig": config, "ModelStatistics": statistics, "ServerMetadata": metadata}
    return grpc.method_handlers_generic_handler(
        "inference.GRPCInferenceService",
        {name: grpc.unary_unary_rpc_method_handler(method) for name, method in methods.items()},
    )


def serve(port: Connection) -> None:
    """Send the port, and serve until this process is ended."""

    async def forever() -> None:
        server = grpc.aio.server(handlers=[service()])
        number = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        port.send(number)
        await server.wait_for_termination()

    asyncio.run(forever())


@contextmanager
def instant_server() -> Iterator[tuple[str, psutil.Process]]:
    """Yield the address of a server in another process, and that process."""
    context = multiprocessing.get_context("spawn")
    ours, its = context.Pipe()
    process = context.Process(target=serve, args=(its,), daemon=True)
    process.start()
    try:
        yield f"127.0.0.1:{ours.recv()}", psutil.Process(process.pid)
    finally:
        process.terminate()
        process.join()


def run(load: Load, seconds: float, address: str, server: psutil.Process, images: Path) -> Spent:
    """Run `triptych loadtest` once."""

    def so_far() -> tuple[int, float]:
        with DetectionClient(address) as client:
            requests = client.statistics()[DETECTION.name].requests
        times = server.cpu_times()
        return requests, times.user + times.system

    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "run.json"
        command = [sys.executable, str(ROOT / "loadtest"), "--address", address, "--images", str(images)]
        command += [*map(str, load.arguments()), "--no-traces", "--warmup-s", "1", "--duration-s", str(seconds)]
        command += ["--max-failures", "1000000"]  # an open loop that is too fast runs into its deadline
        requests, server_s = so_far()
        process = subprocess.Popen([*command, "--out", str(out)], stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)  # with the processes that it has started and waited for
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(f"{' '.join(command)} ended with {process.returncode}")
        requests_after, server_s_after = so_far()
        generator_s = usage.ru_utime + usage.ru_stime
        return Spent(FORMAT.read(out).client, requests_after - requests, generator_s, server_s_after - server_s)


def row(load: Load, short: Spent, long: Spent) -> str:
    """Return a row of the table."""
    requests = long.requests - short.requests
    generator_ms = (long.generator_s - short.generator_s) / requests * 1000
    server_ms = (long.server_s - short.server_s) / requests * 1000
    latencies = long.client.latencies
    cells = [load.name, load.processes, f"{long.client.rate_per_s:.0f}"]
    cells += [f"{latencies.percentile_ms(percent):.2f}" for percent in (50, 95)]
    cells += [f"{generator_ms:.2f}", f"{server_ms:.2f}"]
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    """Measure each load and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "--seconds", type=float, default=8, help="of a load's long run (8); the short one takes a quarter"
    )
    seconds = parser.parse_args().seconds
    console = Console(width=160, highlight=False)
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    console.print(f"{cpu_model()}, {available_cores()} cores; Python {platform.python_version()}, {versions}")
    with tempfile.TemporaryDirectory() as directory, instant_server() as (address, server):
        (image,) = encoded_boards(1)
        (Path(directory) / "board.jpg").write_bytes(image)
        console.print(f"one JPEG of {len(image) / 1000:.0f} KB a request\n")
        titles = ["load", "processes", "requests/s", "p50 ms", "p95 ms"]
        titles += ["generator, CPU ms a request", "server, CPU ms a request"]
        console.print(f"| {' | '.join(titles)} |\n|{' --- |' * len(titles)}")
        for load in LOADS:
            short, long = (
                run(load, duration_s, address, server, Path(directory)) for duration_s in (seconds / 4, seconds)
            )
            console.print(row(load, short, long))
    console.print(f"\nload average of the last 5 minutes: {os.getloadavg()[1]:.1f}")


if __name__ == "__main__":
    main()
