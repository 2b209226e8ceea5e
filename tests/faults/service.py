"""`triptych serve`, which somebody starts again when it ends, as Docker and systemd do."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

import psutil

from triptych.serving.processes import SERVER, ModelProcess, model_processes
from triptych.serving.server import Ports

RESTART_AFTER_S = 0.5
START_S = 60.0


class Service:
    """One service: its address stays, its processes come and go.

    Attributes:
        address: for gRPC.
        whole: how many processes each model has.
        ends: exit code and last words of each `triptych serve` that ended by itself.
    """

    def __init__(self, repository: Path, directory: Path, environment: Mapping[str, str] | None = None) -> None:
        self.ports = Ports.free()
        self.address = f"127.0.0.1:{self.ports.grpc}"
        self.repository = repository
        self.log = directory / "server.log"
        self.whole: Counter[str] = Counter()
        self.ends: list[tuple[int, str]] = []
        self._output = directory / "serve.txt"
        self._environment = {**os.environ, **(environment or {})}
        self._stop = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep)

    def __enter__(self) -> Service:
        self._thread.start()
        try:
            wait_for(lambda: self.said().startswith("Try it"), START_S, "the service does not start")
            self.whole = Counter(process.model for process in self.settled())
        except TimeoutError:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._process is not None:
            self._process.terminate()
        self._thread.join()

    def _keep(self) -> None:
        ports = ["--grpc-port", self.ports.grpc, "--metrics-port", self.ports.metrics, "--http-port", self.ports.http]
        command = [sys.executable, "-m", "triptych", "serve", "--model-repository", self.repository, "--log", self.log]
        while not self._stop.is_set():
            with self._output.open("ab") as output:
                self._process = subprocess.Popen(
                    [*map(str, (*command, *ports))], stdout=output, stderr=output, env=self._environment
                )
            code = self._process.wait()
            if not self._stop.is_set():
                self.ends.append((code, self.said()))
                self._stop.wait(RESTART_AFTER_S)

    def kill(self) -> None:
        """Kill `triptych serve` itself."""
        assert self._process is not None
        self._process.kill()

    def said(self) -> str:
        """Return the last line that `triptych serve` printed."""
        lines = self._output.read_text(errors="replace").splitlines() if self._output.exists() else []
        return lines[-1] if lines else ""

    def triton(self) -> psutil.Process | None:
        """Return the server's process, if it lives."""
        try:
            children = psutil.Process(self._process.pid).children() if self._process else []
            return next((child for child in children if child.name() == SERVER), None)
        except psutil.Error:
            return None

    def settled(self) -> list[ModelProcess]:
        """Wait until the processes that a start replaces are gone, and return the others."""
        while True:
            processes = self.models()
            time.sleep(1)
            if self.models() == processes:
                return processes

    def is_whole(self) -> bool:
        """Return whether every model has all its processes."""
        return Counter(process.model for process in self.models()) >= self.whole

    def models(self, name: str = "") -> list[ModelProcess]:
        """Return the processes of a model that live, or of all."""
        server = self.triton()
        found = model_processes(server) if server else []
        return [process for process in found if name in ("", process.model)]


def wait_for(condition: Callable[[], bool], seconds: float, otherwise: str) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(otherwise)
        time.sleep(0.05)
