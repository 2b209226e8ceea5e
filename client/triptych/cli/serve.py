"""`triptych serve`: the embedded server in a terminal."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Literal

import grpc
import typer
from rich.console import Console

from triptych.cli.options import DEFAULT_ADDRESS, DEFAULT_REPOSITORY, Counts, ModelRepository
from triptych.contract import DETECTION, DecodedBy
from triptych.errors import ContractError
from triptych.serving import Ports, TritonServer
from triptych.serving.log import STANDARD_ERROR
from triptych.serving.log_format import FORMAT_VARIABLE, LogStream, set_up_log
from triptych.serving.preflight import LOOPBACK
from triptych.serving.queues import DEFAULT_BUDGET_MS
from triptych.serving.secret_file import read_secret
from triptych.serving.server import EXIT_TIMEOUT_S
from triptych.serving.supervisor import Supervisor

if TYPE_CHECKING:
    from triptych.serving.tls import ServerTls


def serve(
    model_repository: ModelRepository = DEFAULT_REPOSITORY,
    host: Annotated[
        str,
        typer.Option(metavar="ADDRESS", help="The IP address to listen on; 0.0.0.0 for all, as in a container."),
    ] = LOOPBACK,
    grpc_port: Annotated[int, typer.Option(min=1, max=65535, help="Port for gRPC clients.")] = 8001,
    http: Annotated[
        bool,
        typer.Option(
            "--http", help="Serve HTTP too, without TLS. Pages in a browser on this machine can then send images."
        ),
    ] = False,
    http_port: Annotated[int, typer.Option(min=1, max=65535, help="Port for HTTP clients, with --http.")] = 8000,
    metrics_port: Annotated[int, typer.Option(min=1, max=65535, help="Port for Prometheus.")] = 8002,
    free_ports: Annotated[
        bool, typer.Option("--free-ports", help="Choose three free ports, whatever the options above say.")
    ] = False,
    tls_certificate: Annotated[
        Path | None,
        typer.Option(dir_okay=False, metavar="FILE", help="Encrypt gRPC with this certificate (PEM), and --tls-key."),
    ] = None,
    tls_key: Annotated[
        Path | None,
        typer.Option(dir_okay=False, metavar="FILE", help="The key of --tls-certificate (PEM), without a password."),
    ] = None,
    client_ca: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            metavar="FILE",
            help="Let only clients in whose certificate one of these authorities has signed (PEM).",
        ),
    ] = None,
    key_file: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            metavar="FILE",
            help="Where the key is that loading models takes. Default: a new key at each start.",
        ),
    ] = None,
    ready_timeout_s: Annotated[
        float,
        typer.Option(min=1, metavar="SECONDS", help="When every model must be ready; a large engine takes longer."),
    ] = 60,
    instances: Annotated[
        Counts | None,
        typer.Option(
            parser=Counts.parse,
            metavar="STAGE=N,…",
            help="Processes of preprocess, detector (on each GPU) and postprocess. Default: what `triptych tune` found "
            "here, else by the machine's cores.",
        ),
    ] = None,
    decode: Annotated[
        DecodedBy | None,
        typer.Option(
            help="Where to decode JPEGs; the CPU decodes what the GPU does not take. Default: as preprocess's "
            "config.pbtxt says, which is cpu.",
            show_default=False,
        ),
    ] = None,
    queue_budget_ms: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="How long a request may wait for preprocess, and as long again for the detector, before it is refused "
            f"as overload. Default: as in the models' files, which is {DEFAULT_BUDGET_MS}.",
        ),
    ] = None,
    exit_timeout_s: Annotated[
        int,
        typer.Option(min=1, metavar="SECONDS", help="How long requests in flight may take once it is to stop."),
    ] = EXIT_TIMEOUT_S,
    log: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The server's log; - for standard error. Default: in ~/.local/state/triptych."
        ),
    ] = None,
    log_format: Annotated[
        Literal["text", "json"],
        typer.Option(help="How our own lines look, in the log and here. Triton's own stay as they are."),
    ] = "text",
    otel_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Send traces by OpenTelemetry (OTLP over HTTP), as to http://127.0.0.1:4318/v1/traces. A load test "
            "then has none.",
        ),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show the log on standard error too, as it grows.")
    ] = False,
) -> None:
    """Serve the models on this machine, with Triton from pip: no container, no GPU.

    It listens only on 127.0.0.1, unless --host says otherwise. To load models takes a key, which the commands of the
    same user find. A model whose process dies or hangs, or that somebody unloads, is loaded again. Ctrl-C or SIGTERM
    ends it: it takes no more requests, answers those that it has, and stops. A second one ends it at once.

    Exit codes: 0 it was stopped, 1 it did not start, 3 it died or hung while it served, 130 it was killed by a second
    Ctrl-C.
    """
    server = TritonServer(
        model_repository,
        ports=Ports.free() if free_ports else Ports(http=http_port, grpc=grpc_port, metrics=metrics_port),
        log_path=log,
        ready_timeout_s=ready_timeout_s,
        http=http,
        instances=instances,
        queue_budget_ms=queue_budget_ms,
        host=host,
        tls=_tls(tls_certificate, tls_key, client_ca),
        key=read_secret("--key-file", key_file).decode(errors="replace").strip() if key_file else None,
        exit_timeout_s=exit_timeout_s,
        otel_url=otel_url,
        decode=decode,
    )
    os.environ[FORMAT_VARIABLE] = log_format  # for the models' processes
    if log_format == "json":
        set_up_log(log_format, sys.stdout)
        _serve(server, Console(file=LogStream("triptych.serve"), soft_wrap=True, highlight=False), verbose)
    else:
        _serve(server, Console(soft_wrap=True, highlight=False), verbose)


def _tls(certificate: Path | None, key: Path | None, client_ca: Path | None) -> ServerTls | None:
    if certificate is None and key is None and client_ca is None:
        return None
    if certificate is None or key is None:
        raise ContractError("TLS takes --tls-certificate and --tls-key, but one is missing; give both")
    from triptych.serving.tls import ServerTls

    return ServerTls(certificate, key, client_ca)


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
            if verbose and server.log_path != STANDARD_ERROR:
                threading.Thread(target=_follow, args=(server.log_path,), daemon=True).start()
            server.wait_ready()
        _report(console, server)
        signals.serving = True
        in_log = isinstance(console.file, LogStream)  # then the supervisor's own lines are there already
        Supervisor(server, lambda line: None if in_log else console.print(line, markup=False)).watch(signals.stop)
        server.drain()
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
    if server.remark:
        console.print(server.remark, style="yellow", markup=False)
    for name, value in (
        ("MPS", server.mps),
        ("gRPC", server.grpc_address),
        ("HTTP", server.http_url),
        ("metrics", server.metrics_url),
        ("log", "standard error" if server.log_path == STANDARD_ERROR else str(server.log_path)),
    ):
        if value:
            console.print(f"  {name:<12} {value}", markup=False)
    for line in _exposure(server):
        console.print(line, markup=False)
    address = "" if server.grpc_address == DEFAULT_ADDRESS else f" --address {server.grpc_address}"
    console.print(f"Try it with `triptych detect IMAGE{address}`; stop it with Ctrl-C.", markup=False)


def _exposure(server: TritonServer) -> list[str]:
    """Return what others can do who reach the server, if others than this machine's users can."""
    listening = server.listening
    if not listening.is_open:
        return []
    lines = []
    if listening.tls is None:
        lines.append(
            f"Whoever reaches {listening.host}:{listening.ports.grpc} can send images, and read what is sent: there is "
            "no TLS (--tls-certificate). Nobody can load models without the key."
        )
    elif listening.tls.client_ca is None:
        lines.append(
            f"Whoever reaches {listening.host}:{listening.ports.grpc} can send images (--client-ca lets only known "
            "clients in). Nobody can load models without the key."
        )
    if listening.http:
        lines.append("HTTP has no TLS and lets everybody in: put a proxy in front of it.")
    return lines


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
