"""`triptych serve`: the embedded server in a terminal."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import grpc
import typer
from rich.console import Console

from triptych.cli.console import print_error
from triptych.client import DEFAULT_ADDRESS
from triptych.contract import DETECTION
from triptych.errors import ServerCrashed, ServerStartError
from triptych.serving.repository import DEFAULT_REPOSITORY

if TYPE_CHECKING:
    from triptych.serving.server import TritonServer

EXIT_CRASHED = 3
"""Exit code when the server, or one of its models for good, died while it served."""

EXIT_KILLED = 130
"""Exit code after a second Ctrl-C, as shells have it."""


def serve(
    model_repository: Annotated[
        Path, typer.Option(help="Directory with the models detection, preprocess, detector and postprocess.")
    ] = DEFAULT_REPOSITORY,
    grpc_port: Annotated[int, typer.Option(min=1, max=65535, help="Port for gRPC clients.")] = 8001,
    http_port: Annotated[int, typer.Option(min=1, max=65535, help="Port for HTTP clients.")] = 8000,
    metrics_port: Annotated[int, typer.Option(min=1, max=65535, help="Port for Prometheus.")] = 8002,
    free_ports: Annotated[
        bool, typer.Option("--free-ports", help="Choose three free ports, whatever the options above say.")
    ] = False,
    ready_timeout: Annotated[
        float, typer.Option(min=1, help="Seconds until every model must be ready; more for a large engine.")
    ] = 60,
    log: Annotated[
        Path | None, typer.Option(help="File for the server's log. [default: ~/.local/state/triptych]")
    ] = None,
    summaries: Annotated[
        bool, typer.Option("--summaries", help="Have the metrics tell percentiles of each model's times.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show the server's log on standard error as it grows.")
    ] = False,
) -> None:
    """Serve the models on this machine, with Triton from pip: no container, no GPU.

    It listens on 127.0.0.1 alone. A model whose process dies is loaded anew. Ctrl-C ends it.

    Exit codes: 0 it was stopped, 1 it did not start, 3 it died while it served.
    """
    try:
        # Imported here because the other commands run without the packages that only the server needs.
        from triptych.serving.server import Ports, TritonServer
        from triptych.serving.supervisor import Supervisor
    except ModuleNotFoundError as error:
        raise ServerStartError(
            f"the server needs the package {error.name}; install it with `pip install 'triptych[serve]'`"
        ) from error

    console = Console(soft_wrap=True, highlight=False)
    server = TritonServer(
        model_repository,
        ports=Ports.free() if free_ports else Ports(http=http_port, grpc=grpc_port, metrics=metrics_port),
        log_path=log,
        ready_timeout_s=ready_timeout,
        summaries=summaries,
    )
    signals = _Signals()
    code = 0
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
        # Stopped while it was starting; or asked again while it was about to stop.
        if signals.stop.is_set():
            server.kill()
            code = EXIT_KILLED
    except ServerCrashed as error:
        print_error(error)
        code = EXIT_CRASHED
    finally:
        signals.serving = False
        try:
            server.stop()
        except KeyboardInterrupt:
            server.kill()
            code = EXIT_KILLED
    if code:
        raise typer.Exit(code)
    console.print("Stopped.")


class _Signals:
    """Ctrl-C and SIGTERM: a calm end while the server serves, an interruption before and after that.

    Made before the server starts; `stop` is set by the first signal that comes while `serving`.
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
    """Say what runs where, and what to do next."""
    console.print(f"Triton serves [bold]{DETECTION.name}[/bold], ready in {server.ready_s:.1f} s")
    try:
        served = server.served()
    except grpc.RpcError:
        served = {}  # it died at this moment; the supervisor finds out why
    for (model, version), count in served.items():
        if count:
            console.print(f"  {model:<12} version {version}, {count} instance{'s' if count > 1 else ''}")
    for name, value in (
        ("gRPC", server.grpc_address),
        ("HTTP", server.http_url),
        ("metrics", server.metrics_url),
        ("log", str(server.log_path)),
    ):
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
