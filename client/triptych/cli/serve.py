"""`triptych serve`: the embedded server in a terminal."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Annotated

import grpc
import typer
from rich.console import Console

from triptych.cli.options import DEFAULT_ADDRESS, DEFAULT_REPOSITORY, ModelRepository
from triptych.contract import DETECTION
from triptych.serving import Ports, TritonServer
from triptych.serving.queues import DEFAULT_BUDGET_MS
from triptych.serving.supervisor import Supervisor


def serve(
    model_repository: ModelRepository = DEFAULT_REPOSITORY,
    grpc_port: Annotated[int, typer.Option(min=1, max=65535, help="Port for gRPC clients.")] = 8001,
    http: Annotated[
        bool,
        typer.Option("--http", help="Serve HTTP too. Pages in a browser on this machine can then send images."),
    ] = False,
    http_port: Annotated[int, typer.Option(min=1, max=65535, help="Port for HTTP clients, with --http.")] = 8000,
    metrics_port: Annotated[int, typer.Option(min=1, max=65535, help="Port for Prometheus.")] = 8002,
    free_ports: Annotated[
        bool, typer.Option("--free-ports", help="Choose three free ports, whatever the options above say.")
    ] = False,
    ready_timeout_s: Annotated[
        float,
        typer.Option(min=1, metavar="SECONDS", help="When every model must be ready; a large engine takes longer."),
    ] = 60,
    queue_budget_ms: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="How long a request may wait for preprocess, and as long again for the detector, before it is refused "
            f"as overload. Default: as in the models' files, which is {DEFAULT_BUDGET_MS}.",
        ),
    ] = None,
    log: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The server's log. Default: in ~/.local/state/triptych.")
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show the server's log on standard error as it grows.")
    ] = False,
) -> None:
    """Serve the models on this machine, with Triton from pip: no container, no GPU.

    It listens only on 127.0.0.1. To load models takes a key, which the commands of the same user find. A model whose
    process dies or hangs, or that somebody unloads, is loaded again. Ctrl-C ends it, a second Ctrl-C at once.

    Exit codes: 0 it was stopped, 1 it did not start, 3 it died or hung while it served, 130 it was killed by a second
    Ctrl-C.
    """
    server = TritonServer(
        model_repository,
        ports=Ports.free() if free_ports else Ports(http=http_port, grpc=grpc_port, metrics=metrics_port),
        log_path=log,
        ready_timeout_s=ready_timeout_s,
        http=http,
        queue_budget_ms=queue_budget_ms,
    )
    _serve(server, Console(soft_wrap=True, highlight=False), verbose)


def _serve(server: TritonServer, console: Console, verbose: bool) -> None:
    """Serve until a signal comes.

    Raises:
        ServerStartError: it did not start.
        ServerCrashed: it died while it served.
        KeyboardInterrupt: a second signal came, and the server was killed.
    """
    signals = _Signals()
    try:
        with console.status("Starting Triton…"):
            server.start()
            if verbose:
                threading.Thread(target=_follow, args=(server.log_path,), daemon=True).start()
            server.wait_ready()
        _report(console, server)
        signals.serving = True
        Supervisor(server, lambda line: console.print(line, markup=False)).watch(signals.stop)
    except KeyboardInterrupt:
        # The first signal came while it was starting; or a second one while it was about to stop.
        if signals.stop.is_set():
            server.kill()
            raise
    finally:
        signals.serving = False
        try:
            server.stop()
        except KeyboardInterrupt:
            server.kill()
            raise
    console.print("Stopped.")


class _Signals:
    """Ctrl-C and SIGTERM: an orderly end while the server serves, a KeyboardInterrupt before and after that.

    `stop` is set by the first signal that comes while `serving`.
    """

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.serving = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if self.stop.is_set() or not self.serving:
            raise KeyboardInterrupt
        self.stop.set()


def _report(console: Console, server: TritonServer) -> None:
    """Print what runs where, and what to do next."""
    console.print(f"Triton serves [bold]{DETECTION.name}[/bold], ready in {server.ready_s:.1f} s")
    try:
        served = server.served()
    except grpc.RpcError:
        served = {}  # it died at this moment; the supervisor finds out why
    for (model, version), count in served.items():
        if count:
            instances = f"{count} instance{'s' if count > 1 else ''} ({server.decisions[model]})"
            console.print(f"  {model:<12} version {version}, {instances}")
    for name, value in (
        ("gRPC", server.grpc_address),
        ("HTTP", server.http_url),
        ("metrics", server.metrics_url),
        ("log", str(server.log_path)),
    ):
        if value:
            console.print(f"  {name:<12} {value}", markup=False)
    address = "" if server.grpc_address == DEFAULT_ADDRESS else f" --address {server.grpc_address}"
    console.print(f"Try it with `triptych detect IMAGE{address}`; stop it with Ctrl-C.", markup=False)


def _follow(path: Path) -> None:
    """Copy a log to standard error as it grows, until the process ends."""
    pause = threading.Event()
    with path.open(errors="replace") as file:
        while True:
            text = file.read()
            if text:
                sys.stderr.write(text)
                sys.stderr.flush()
            else:
                pause.wait(0.1)
