"""The embedded server: the real Triton, from pip, on this machine, as a context manager.

    with TritonServer(Path("model_repository"), ports=Ports.free()) as server:
        ...  # server.grpc_address serves `detection`

It suits a pytest fixture of session scope just as well. `triptych.serving.supervisor` watches over a server that runs
for long.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import grpc
import psutil

from triptych.contract import DETECTION, POSTPROCESS, PREPROCESS, STAGES
from triptych.errors import ContractError, ServerCrashed, ServerStartError
from triptych.machine import available_cores
from triptych.serving import log as server_log
from triptych.serving import preflight
from triptych.serving.preflight import HOST, Ports
from triptych.serving.processes import ModelProcess, kill_marked, model_processes
from triptych.wire.model_control import ModelControl

__all__ = ["Ports", "TritonServer", "default_instances", "default_log_path"]

SUMMARY_QUANTILES = "0.5:0.005,0.95:0.001,0.99:0.001"
"""Of the metrics' summaries: each quantile, and by how much its rank may be off."""

EXIT_TIMEOUT_S = 5
"""How long Triton waits for requests in flight, and for model processes that will never answer, as it ends."""

# Runs in the server's process before Triton does: ties its life to ours, unless we are gone already.
_LAUNCH = """
import ctypes, os, signal, sys
if sys.argv[1] != "0":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    if os.getppid() != int(sys.argv[1]):
        sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


def default_instances(cores: int) -> dict[str, int]:
    """Instances of the models around the detector, by model name, for a machine with that many CPU cores.

    Decoding and resizing an image takes a core for milliseconds: half of the cores may do it at a time. What
    follows the detector takes well under a millisecond: an eighth. The detector's own instances belong to its
    generated configuration.
    """
    return {PREPROCESS.name: max(1, cores // 2), POSTPROCESS.name: max(1, cores // 8)}


def default_log_path(ports: Ports) -> Path:
    """Where the log of a server on these ports goes; each start overwrites the one before."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "triptych" / f"server-{ports.grpc}.log"


class TritonServer:
    """Triton serving one model repository on the loopback interface, from `start` to `stop`.

    The server ends with this process, however that ends, if `start` was called in the main thread. (The kernel
    ties a child to the thread that made it, so a server started in another thread is not tied to anything: call
    `stop`.)

    Attributes:
        ports: the TCP ports it listens on.
        log_path: the file that the server and its models log to.
        ready_s: how long it took from `start` until every model was ready, in seconds; 0 before that.
    """

    def __init__(
        self,
        model_repository: Path,
        *,
        ports: Ports | None = None,
        log_path: Path | None = None,
        ready_timeout_s: float = 60.0,
        instances: Mapping[str, int] | None = None,
        summaries: bool = False,
    ) -> None:
        """Prepare a server; nothing runs yet.

        Args:
            model_repository: the directory with the models of the contract.
            ports: default 8000, 8001 and 8002; `Ports.free()` chooses others.
            log_path: default `default_log_path`.
            ready_timeout_s: for start and readiness together, and for each reload, in seconds.
            instances: instance counts by model name, over `default_instances` and over the models' own.
            summaries: have the metrics tell the percentiles of each model's times.

        Raises:
            ContractError: `instances` names a model that does not exist, or a count below 1.
        """
        names = [stage.name for stage in STAGES]
        for name, count in (instances or {}).items():
            if name not in names or count < 1:
                raise ContractError(f"instances must be at least 1 of {', '.join(names)}, but got {count} of {name}")
        self.ports = ports or Ports()
        self.log_path = log_path or default_log_path(self.ports)
        self.ready_s = 0.0
        self._model_repository = model_repository
        self._ready_timeout_s = ready_timeout_s
        self._instances = dict(instances or {})
        self._summaries = summaries
        token = secrets.token_hex(4)
        self._id = f"triptych-{token}"
        self._shm_prefix = f"triptych_{token}_"
        self._process: subprocess.Popen[bytes] | None = None
        self._control: ModelControl | None = None
        self._directory: Path | None = None
        self._started = 0.0

    def __enter__(self) -> TritonServer:
        try:
            self.start()
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def grpc_address(self) -> str:
        """`HOST:PORT` for gRPC clients."""
        return f"{HOST}:{self.ports.grpc}"

    @property
    def http_url(self) -> str:
        """The URL that HTTP clients start from."""
        return f"http://{HOST}:{self.ports.http}"

    @property
    def metrics_url(self) -> str:
        """The URL that Prometheus scrapes."""
        return f"http://{HOST}:{self.ports.metrics}/metrics"

    @property
    def pid(self) -> int:
        """The process id of the server.

        Raises:
            ServerStartError: it was not started.
        """
        return self._running().pid

    def start(self) -> None:
        """Check all that can be checked beforehand, then start the server; `wait_ready` loads the models.

        Raises:
            ServerStartError: something that the server needs is not there; the message says what to do.
        """
        if self._process is not None:
            raise ServerStartError("this server was started already; make another TritonServer to start again")
        installation = preflight.find_installation()
        preflight.check_repository(self._model_repository)
        preflight.check_shared_memory()
        preflight.check_ports(self.ports)
        try:
            self.log_path.parent.mkdir(parents=True, exist_ok=True)
            log = self.log_path.open("wb")
        except OSError as error:
            raise ServerStartError(
                f"the log {self.log_path} cannot be written ({error.strerror}); choose another with --log"
            ) from error
        self._started = time.monotonic()
        self._directory = Path(tempfile.mkdtemp(prefix="triptych-"))
        backends = self._directory / "backends"
        installation.link_backends(backends)
        traces = self._directory / "traces"
        traces.mkdir()
        arguments = [
            str(installation.binary),
            *("--id", self._id),
            *("--model-repository", str(self._model_repository.resolve())),
            *("--backend-directory", str(backends)),
            # Starting empty and loading through the API gives the reason of a failure back as its answer.
            *("--model-control-mode", "explicit"),
            # Ours are complete, and completing them costs a second per load: Triton starts every model twice.
            "--disable-auto-complete-config",
            *("--http-address", HOST, "--http-port", str(self.ports.http)),
            *("--grpc-address", HOST, "--grpc-port", str(self.ports.grpc)),
            *("--metrics-address", HOST, "--metrics-port", str(self.ports.metrics)),
            "--allow-gpu-metrics=false",
            # Off until somebody asks for them; but where they go can be said only here.
            *("--trace-config", f"triton,file={traces / 'trace'}", "--trace-config", "level=OFF"),
            *("--exit-timeout-secs", str(EXIT_TIMEOUT_S)),
            f"--backend-config=python,shm-region-prefix-name={self._shm_prefix}",
        ]
        if self._summaries:
            arguments += ["--metrics-config", "summary_latencies=true"]
            arguments += ["--metrics-config", f"summary_quantiles={SUMMARY_QUANTILES}"]
        tied_to = os.getpid() if threading.current_thread() is threading.main_thread() else 0
        with log:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _LAUNCH, str(tied_to), *arguments],
                env=installation.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C in the terminal is for us alone, who then stop the server
            )
        self._control = ModelControl(self.grpc_address)

    def wait_ready(self) -> None:
        """Wait for the server, load the models and give them their instances.

        Raises:
            ServerStartError: the server ended, a model did not load, or it took longer than `ready_timeout_s`.
        """
        control = self._connected()
        deadline = self._started + self._ready_timeout_s
        while not control.is_server(self._id):  # another may have been quicker to take the port
            if (ended := self._ended()) is not None:
                raise ServerStartError(ended)
            if time.monotonic() > deadline:
                raise ServerStartError(self._too_late())
            time.sleep(0.05)
        model = DETECTION.name
        try:
            control.load(model, _remaining_s(deadline))
            for model, count in {**default_instances(available_cores()), **self._instances}.items():
                control.set_instances(model, count, _remaining_s(deadline))
        except grpc.RpcError as error:
            raise ServerStartError(self._load_error(model, error)) from error
        self.ready_s = time.monotonic() - self._started

    def stop(self) -> None:
        """End the server and remove what it leaves: processes, temporary files, shared memory. The log stays.

        May be called at any time and more than once. A server that does not end by itself is killed.
        """
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(EXIT_TIMEOUT_S + 3)
        self.kill()

    def kill(self) -> None:
        """End the server at once, whatever it does, and remove what it leaves; otherwise like `stop`."""
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            # Model processes outlive a server that was killed. Only theirs and its command lines hold this name.
            kill_marked(self._shm_prefix)
        for region in preflight.SHARED_MEMORY.glob(f"{self._shm_prefix}*"):
            region.unlink(missing_ok=True)
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)

    def processes(self) -> list[ModelProcess]:
        """The model processes that are alive, by process id; none if the server is gone."""
        try:
            return model_processes(psutil.Process(self.pid))
        except psutil.NoSuchProcess:
            return []

    def model_processes(self) -> dict[str, list[int]]:
        """The ids of the processes that are alive, by model name."""
        by_model: dict[str, list[int]] = {}
        for process in self.processes():
            by_model.setdefault(process.model, []).append(process.pid)
        return by_model

    def served(self) -> dict[tuple[str, str], int]:
        """How many processes each (model, version) that takes requests should have; 0 for the ensemble.

        Raises:
            grpc.RpcError: the server does not answer.
        """
        return self._connected().served()

    def reload(self, model: str) -> float:
        """Start the processes of a model anew, as it is served now; requests are answered meanwhile if they can be.

        Returns:
            How long it took, in seconds.

        Raises:
            ServerCrashed: the model did not come back; the server goes on with what is left of it.
        """
        began = time.monotonic()
        try:
            self._connected().restart(model, self._ready_timeout_s)
        except grpc.RpcError as error:
            raise ServerCrashed(self._load_error(model, error)) from error
        return time.monotonic() - began

    def raise_if_ended(self) -> None:
        """Notice that the server's process is gone.

        Raises:
            ServerCrashed: it is; the message says how it ended, and its log's last words.
        """
        if (ended := self._ended()) is not None:
            raise ServerCrashed(ended)

    def log_tail(self) -> str:
        """The end of the log so far."""
        return server_log.read_tail(self.log_path)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise ServerStartError("this server was not started; call start()")
        return self._process

    def _connected(self) -> ModelControl:
        if self._control is None:
            raise ServerStartError("this server does not run; call start()")
        return self._control

    def _ended(self) -> str | None:
        """How the server ended, as a sentence; None while it runs."""
        returncode = self._running().poll()
        if returncode is None:
            return None
        log = self.log_tail()
        port = server_log.port_in_use(log)
        if port is not None:
            return preflight.port_taken(self.ports, port)
        return (
            f"the server {server_log.describe_exit(returncode)}{server_log.last_words(log)}; "
            f"the whole log is {self.log_path}"
        )

    def _too_late(self) -> str:
        log = self.log_tail()
        loading = server_log.still_loading(log)
        return (
            f"the server was not ready within {self._ready_timeout_s:g} s"
            + (f" (still loading: {', '.join(loading)})" if loading else "")
            + f"{server_log.last_words(log)}; allow it longer with --ready-timeout, or see the log {self.log_path}"
        )

    def _load_error(self, model: str, error: grpc.RpcError) -> str:
        """Why a call that loads a model failed, as a sentence."""
        code, details = error.code(), error.details() or ""
        if code == grpc.StatusCode.UNAVAILABLE:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._running().wait(2)  # the connection is gone a moment before the process is
        if (ended := self._ended()) is not None:
            return ended
        if code == grpc.StatusCode.DEADLINE_EXCEEDED:
            return self._too_late()
        failure = server_log.load_failure(model, details)
        hint = ""
        if failure.reason.startswith("ModuleNotFoundError"):
            hint = f"; install the module for {sys.executable}"
        elif not failure.place:
            # Without a traceback the answer alone tells little: "is not healthy", "not available or ambiguous".
            hint = server_log.last_words(self.log_tail())
        return f"{failure}{hint}; the whole log is {self.log_path}"


def _remaining_s(deadline: float) -> float:
    """The time left until `deadline`, enough for a call to say that it is over."""
    return max(0.1, deadline - time.monotonic())
