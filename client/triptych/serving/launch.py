"""Starts the process of the embedded server: Triton's command line, and how its life is tied to ours."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from triptych.serving.preflight import HOST, Installation, Ports
from triptych.wire.access import KEY_NAME, RESTRICTED

EXIT_TIMEOUT_S = 5
"""How long Triton waits for requests in flight, and for model processes that will never answer, as it ends."""

# Runs in the server's process before Triton does: ties its life to ours, unless we are gone already.
_TIE = """
import ctypes, os, signal, sys
if sys.argv[1] != "0":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    if os.getppid() != int(sys.argv[1]):
        sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclass(frozen=True)
class Launch:
    """What one start of the server needs.

    Attributes:
        installation: Triton from pip.
        server_id: the name that the server answers to.
        model_repository: what it serves.
        ports: where it listens.
        scratch: an empty directory for its backends and traces.
        shm_prefix: how its regions of shared memory, and the command lines of its model processes, are marked.
        key: without it the server does not load models, register shared memory or change the settings of traces.
        http: whether it serves HTTP, which every page in a browser on this machine can reach.
    """

    installation: Installation
    server_id: str
    model_repository: Path
    ports: Ports
    scratch: Path
    shm_prefix: str
    key: str
    http: bool = False

    def start(self, log: BinaryIO) -> subprocess.Popen[bytes]:
        """Lay out the scratch directory and start Triton, which writes to `log`.

        The server ends with this process if this is the main thread. The kernel ties a child to the thread that
        made it, so a server that another thread starts is not tied to anything.
        """
        self.installation.link_backends(self.backends)
        self.traces.mkdir()
        tied_to = os.getpid() if threading.current_thread() is threading.main_thread() else 0
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _TIE, str(tied_to), *self.command()],
            env=self.installation.environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C in the terminal reaches us alone, and we stop the server
        )

    @property
    def backends(self) -> Path:
        """Where Triton finds its backends."""
        return self.scratch / "backends"

    @property
    def traces(self) -> Path:
        """Where Triton writes its traces."""
        return self.scratch / "traces"

    def command(self) -> list[str]:
        """Return Triton's command line."""
        return [
            str(self.installation.binary),
            *("--id", self.server_id),
            *("--model-repository", str(self.model_repository.resolve())),
            *("--backend-directory", str(self.backends)),
            # Starting empty and loading through the API gives the reason of a failure back as its answer.
            *("--model-control-mode", "explicit"),
            # Ours are complete, and completing them costs a second per load: Triton starts every model twice.
            "--disable-auto-complete-config",
            *self._http(),
            *("--grpc-address", HOST, "--grpc-port", str(self.ports.grpc)),
            *("--metrics-address", HOST, "--metrics-port", str(self.ports.metrics)),
            f"--grpc-restricted-protocol={self._restriction}",
            "--allow-gpu-metrics=false",
            # Off until a client asks for traces. Where they go can be set only here.
            *("--trace-config", f"triton,file={self.traces / 'trace'}", "--trace-config", "level=OFF"),
            *("--exit-timeout-secs", str(EXIT_TIMEOUT_S)),
            f"--backend-config=python,shm-region-prefix-name={self.shm_prefix}",
        ]

    def _http(self) -> list[str]:
        if not self.http:
            return ["--allow-http=false"]
        return [
            *("--http-address", HOST, "--http-port", str(self.ports.http)),
            f"--http-restricted-api={self._restriction}",
        ]

    @property
    def _restriction(self) -> str:
        return f"{','.join(RESTRICTED)}:{KEY_NAME}={self.key}"
