"""The embedded server: the real Triton, from pip, on this machine, as a context manager.

    with TritonServer(Path("model_repository"), ports=Ports.free()) as server:
        ...  # server.grpc_address serves `detection`

As a pytest fixture of session scope it serves all tests. `triptych.serving.supervisor` watches over a server that runs
for long.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import grpc
import psutil
from tritonclient.grpc import model_config_pb2

from triptych.contract import DETECTION, DETECTOR, POSTPROCESS, PREPROCESS, DecodedBy
from triptych.errors import ContractError, ServerCrashed, ServerStartError
from triptych.files import Hold
from triptych.serving import log as server_log
from triptych.serving import preflight
from triptych.serving.decoding import check_gpu_decoding
from triptych.serving.fitting import Fitting
from triptych.serving.launch import Launch
from triptych.serving.listening import Listening
from triptych.serving.log_output import LogOutput
from triptych.serving.mps import start_mps
from triptych.serving.preflight import LOOPBACK, Ports
from triptych.serving.processes import ModelProcess, hide_argument, model_processes
from triptych.serving.scratch import Belongings, Scratch, remove_leftovers
from triptych.serving.tuned import Settings
from triptych.wire.access import key_path, state_directories, usable_state_directory, write_key
from triptych.wire.credentials import LOCAL
from triptych.wire.model_control import ModelControl, processes_of

if TYPE_CHECKING:
    from triptych.serving.tls import ServerTls

__all__ = ["Ports", "TritonServer", "default_log_path"]

EXIT_TIMEOUT_S = 5
"""How long requests in flight may take as the server ends, unless told otherwise."""

_URL = re.compile(r"https?://[^\s/,]+/[^\s,]*")
_KEY = re.compile(r"[A-Za-z0-9+/=_.~-]{16,256}")


def default_log_path(ports: Ports) -> Path:
    """Return where the log of a server on these ports goes. Each start overwrites the log of the one before."""
    try:
        directory = usable_state_directory()
    except OSError:
        directory = state_directories()[0]  # opening the log says what is wrong with it
    return directory / f"server-{ports.grpc}.log"


class TritonServer:
    """Triton serving one model repository, from `start` to `stop`; on the loopback interface unless told otherwise.

    The server ends with this process, however that ends, if `start` was called in the main thread. A server that was
    started in another thread outlives this process: call `stop`.

    Attributes:
        listening: where it listens.
        log_path: the file that the server and its models log to; `log.STANDARD_ERROR` for our standard error.
        ready_s: how long it took from `start` until every model was ready, in seconds; 0 before that.
        decisions: who decided how many instances a stage has, in a few words by its name; empty before that.
        mps: how its processes share a GPU, in a few words; empty before the start, and where the CPU decodes.
        remark: why what `triptych tune` found is not applied here; empty if it is, or if there is nothing.
    """

    def __init__(
        self,
        model_repository: Path,
        *,
        ports: Ports | None = None,
        log_path: Path | None = None,
        ready_timeout_s: float = 60.0,
        instances: Mapping[str, int] | None = None,
        settings: Settings | None = None,
        http: bool = False,
        queue_budget_ms: int | None = None,
        host: str = LOOPBACK,
        tls: ServerTls | None = None,
        key: str | None = None,
        exit_timeout_s: int = EXIT_TIMEOUT_S,
        otel_url: str | None = None,
        decode: DecodedBy | None = None,
    ) -> None:
        """Prepare a server; nothing runs yet.

        Args:
            model_repository: the directory with the models of the contract.
            ports: default 8000, 8001 and 8002; `Ports.free()` chooses others.
            log_path: default `default_log_path`.
            ready_timeout_s: for start and readiness together, and for each reload, in seconds.
            instances: instance counts by model name, over what `fit_instances` decides and over the models' own.
            settings: of all stages that `instances` does not name; None: what `triptych tune` found, if it did here.
            http: serve HTTP as well. Every page in a browser on this machine can then send images to the server,
                though not read the answers.
            queue_budget_ms: how long a request may wait for preprocess, and as long again for the detector, before it
                is refused; None: as the models' files say, that is `queues.DEFAULT_BUDGET_MS`.
            host: the IP address it listens on; 0.0.0.0 or :: for all of this machine.
            tls: how gRPC is encrypted, and which clients are let in. HTTP and the metrics are never encrypted.
            key: what it wants to see before it loads models; None: it makes a key at random.
            exit_timeout_s: how long requests in flight may take as it ends.
            otel_url: where traces go by OpenTelemetry (OTLP over HTTP), such as http://127.0.0.1:4318/v1/traces: those
                of requests whose client has begun one. Traces in files, which a load test reads, there are none then.
            decode: where preprocess decodes JPEGs; None: as its file says.

        Raises:
            ContractError: `instances` names a model that does not exist, or a count below 1; `host` is no IP address;
                `key` is too short or has other characters than a key has; `otel_url` is no URL.
        """
        if otel_url is not None and not _URL.fullmatch(otel_url):
            raise ContractError(
                f"traces go to a URL such as http://127.0.0.1:4318/v1/traces, but got {otel_url!r}; name all of it"
            )
        if key is not None and not _KEY.fullmatch(key):
            raise ContractError(
                "the server's key must be 16 to 256 letters, digits and characters of +/=_.~-, but is not; make one "
                "with `openssl rand -hex 16`"
            )
        self.listening = Listening(host, ports or Ports(), http, tls)
        self.log_path = log_path or default_log_path(self.ports)
        self.ready_s = 0.0
        self.mps = ""
        self._model_repository = model_repository
        self._ready_timeout_s = ready_timeout_s
        self._fitting = Fitting(model_repository, instances, queue_budget_ms, settings, decode)
        self.decisions, self.remark = self._fitting.decisions, self._fitting.remark
        self._otel_url = otel_url
        self._exit_timeout_s = exit_timeout_s
        self._log = LogOutput(self.log_path)
        token = secrets.token_hex(4)
        self._id = f"triptych-{token}"
        self._shm_prefix = f"triptych_{token}_"
        self._key = key or secrets.token_hex(16)
        self._key_given = key is not None
        self._process: subprocess.Popen[bytes] | None = None
        self._control: ModelControl | None = None
        self._scratch: Scratch | None = None
        self._launch: Launch | None = None
        self._configs: dict[str, model_config_pb2.ModelConfig] = {}
        self._in_use: dict[str, Hold] = {}
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
    def ports(self) -> Ports:
        """The TCP ports it listens on; that of HTTP only if it serves HTTP."""
        return self.listening.ports

    @property
    def grpc_address(self) -> str:
        """`HOST:PORT` for gRPC clients on this machine."""
        return self.listening.grpc_address

    @property
    def http_url(self) -> str:
        """The URL that HTTP clients on this machine start from; empty if HTTP is not served."""
        return self.listening.http_url

    @property
    def metrics_url(self) -> str:
        """The URL that a Prometheus on this machine scrapes."""
        return self.listening.metrics_url

    @property
    def pid(self) -> int:
        """The process id of the server.

        Raises:
            ServerStartError: it was not started.
        """
        return self._running().pid

    @property
    def control(self) -> ModelControl:
        """The control interface of the running server.

        Raises:
            ServerStartError: it is not running.
        """
        if self._control is None:
            raise ServerStartError("this server is not running; call start()")
        return self._control

    def start(self) -> None:
        """Check all that can be checked beforehand, then start the server. `wait_ready` loads the models.

        Raises:
            ServerStartError: something that the server needs is missing. The message says what to do.
            ContractError: it is to decode on a GPU, and the detector takes no pixels from there.
        """
        if self._process is not None:
            raise ServerStartError("this server was started already; make another TritonServer to start again")
        installation = preflight.find_installation()
        preflight.check_repository(self._model_repository)
        preflight.check_served_files(self._model_repository)
        if self._fitting.decoded_by == "gpu":
            check_gpu_decoding()
            self._fitting.config(DETECTOR.name)  # raises if it takes no pixels from there
        preflight.check_shared_memory(self._fitting.shared_memory_bytes())
        preflight.check_temporary_directory()
        preflight.check_ports(self.ports, http=self.listening.http, host=self.listening.host)
        if self.listening.tls:
            self.listening.tls.check()
        remove_leftovers()
        try:
            log = self._log.open()
        except OSError as error:
            raise ServerStartError(
                f"the log {self.log_path} cannot be written ({error.strerror}); choose another with --log"
            ) from error
        self._started = time.monotonic()
        with log:
            self._scratch = Scratch(Belongings(self._shm_prefix, self._key, self._key_file()))
            if self._fitting.decoded_by == "gpu":
                self.mps = start_mps(self._scratch.directory)
            own = self.listening.tls.own_credentials(self._scratch.directory) if self.listening.tls else LOCAL
            self._launch = Launch(
                installation,
                self._id,
                self._model_repository,
                self.listening,
                self._scratch.directory,
                self._shm_prefix,
                self._key,
                self._exit_timeout_s,
                self._otel_url,
                self._fitting.pool_options(),
            )
            self._process = self._launch.start(log)
        self._control = ModelControl(self.grpc_address, self._key, own)

    def wait_ready(self) -> None:
        """Wait for the server, load the models and give them their instances and queues.

        Raises:
            ServerStartError: the server ended, a model did not load, or it took longer than `ready_timeout_s`.
        """
        control, launch = self.control, self._launch
        assert launch is not None  # noqa: S101  (there is no control without it)
        deadline = self._started + self._ready_timeout_s
        while not control.is_server(self._id):  # another server may have been quicker to take the port
            if (ended := self._ended()) is not None:
                raise ServerStartError(ended)
            if time.monotonic() > deadline:
                raise ServerStartError(self._timeout_error())
            time.sleep(0.05)
        # The key may replace another server's only now that the port is ours.
        if self._key_file():
            write_key(self.ports.grpc, self._key)
        hide_argument(self.pid, self._key)
        model = DETECTION.name
        try:
            # To load an ensemble is to load its stages as their files say. So it is loaded while they cannot be, and
            # is ready once each of them is loaded as it is to be served. The detector is first: the others learn of it.
            with launch.no_stage_loads(), contextlib.suppress(grpc.RpcError):
                control.load(DETECTION.name, _remaining_s(deadline))
            for model in (DETECTOR.name, PREPROCESS.name, POSTPROCESS.name):
                control.load(model, _remaining_s(deadline), self._fitting.config(model))
            model = DETECTION.name
            if all(served != model for served, _ in self.served()):
                control.load(model, _remaining_s(deadline))  # which says what is wrong with it
                self.served()
        except grpc.RpcError as error:
            raise ServerStartError(self._load_error(model, error)) from error
        self.ready_s = time.monotonic() - self._started

    def _key_file(self) -> str:
        """Return where our commands find the key; empty if there is no place, and it is written down elsewhere."""
        try:
            return str(key_path(self.ports.grpc))
        except OSError as error:
            if self._key_given:
                return ""
            raise ServerStartError(
                f"there is no place for the server's key ({error}); set XDG_STATE_HOME to a directory of yours, or "
                "give a key with --key-file"
            ) from error

    def drain(self) -> None:
        """Take no more requests, and wait until those that were taken have their answers, or until time is up.

        Triton alone would not: as it ends, it fails requests that are between two stages.
        """
        deadline = time.monotonic() + self._exit_timeout_s
        with contextlib.suppress(grpc.RpcError):  # it is dead or hangs, and has no answers any more
            self.control.unload(DETECTION.name, self._exit_timeout_s)
            while self.control.has_work(DETECTION.name) and time.monotonic() < deadline:
                time.sleep(0.02)

    def stop(self) -> None:
        """End the server and remove its processes, temporary files and shared memory. The log stays.

        Call it at any time, and as often as you like. A server that does not end by itself is killed.
        """
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(self._exit_timeout_s + 3)
        self.kill()

    def kill(self) -> None:
        """End the server at once, whatever it is doing, and remove what `stop` removes."""
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._in_use.clear()
        if self._scratch is not None:
            self._scratch.remove()

    def processes(self) -> list[ModelProcess]:
        """Return the model processes that are alive, by process id; none if the server is gone."""
        try:
            return model_processes(psutil.Process(self.pid))
        except psutil.NoSuchProcess:
            return []

    def model_processes(self) -> dict[str, list[int]]:
        """Return the ids of the processes that are alive, by model name."""
        by_model: dict[str, list[int]] = {}
        for process in self.processes():
            by_model.setdefault(process.model, []).append(process.pid)
        return by_model

    def served(self) -> dict[tuple[str, str], int]:
        """Return how many processes each (model, version) that takes requests should have; 0 for the ensemble.

        Raises:
            grpc.RpcError: the server does not answer.
        """
        configs = self.control.configs()
        # What was unloaded stays known, for `restore`.
        self._configs |= {model: config for (model, _), config in configs.items()}
        detector = self._model_repository / DETECTOR.name
        serving = [version for model, version in configs if model == DETECTOR.name]
        self._in_use = {version: self._in_use.get(version) or Hold(detector / version) for version in serving}
        return {served: processes_of(config) for served, config in configs.items()}

    def restore(self, model: str) -> float:
        """Load a model that was unloaded, as it was when `served` was last asked, and return the seconds it took.

        Raises:
            ServerCrashed: it does not load.
        """
        began = time.monotonic()
        try:
            self.control.load(model, self._ready_timeout_s, self._configs.get(model))
            if model == DETECTION.name:  # which loads its stages again, as their files say
                # The detector first. The others have read its file, which may name another version by now.
                for stage in (DETECTOR, PREPROCESS, POSTPROCESS):
                    config = self._configs.get(stage.name)
                    if stage is not DETECTOR or config != self.control.config(stage.name):
                        self.control.load(stage.name, self._ready_timeout_s, config)
        except grpc.RpcError as error:
            raise ServerCrashed(self._load_error(model, error)) from error
        return time.monotonic() - began

    def reload(self, model: str) -> float:
        """Start new processes for a model, as it is served now, and return how long that took in seconds.

        Processes that are alive answer requests meanwhile.

        Raises:
            ServerCrashed: the model did not come back. The server goes on with the processes that are left.
        """
        began = time.monotonic()
        try:
            self.control.restart(model, self._ready_timeout_s)
        except grpc.RpcError as error:
            raise ServerCrashed(self._load_error(model, error)) from error
        return time.monotonic() - began

    def raise_if_ended(self) -> None:
        """Raise if the server's process is gone.

        Raises:
            ServerCrashed: it is gone. The message says how it ended, and the last errors in its log.
        """
        if (ended := self._ended()) is not None:
            raise ServerCrashed(ended)

    def log_tail(self) -> str:
        """Return the end of the log so far."""
        return self._log.tail()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise ServerStartError("this server was not started; call start()")
        return self._process

    def _ended(self) -> str | None:
        """Return how the server ended, as a sentence; None while it runs."""
        returncode = self._running().poll()
        if returncode is None:
            return None
        self._log.settle()
        log = self.log_tail()
        port = server_log.port_in_use(log)
        if port is not None:
            return preflight.port_taken(self.ports, port)
        return server_log.describe_end(returncode, log, self.log_path)

    def _timeout_error(self) -> str:
        return server_log.describe_timeout(self._ready_timeout_s, self.log_tail(), self.log_path)

    def _load_error(self, model: str, error: grpc.RpcError) -> str:
        """Return why a call that loads a model failed, as a sentence."""
        code, details = error.code(), error.details() or ""
        if code == grpc.StatusCode.UNAVAILABLE:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._running().wait(2)  # the connection is gone a moment before the process is
        if (ended := self._ended()) is not None:
            return ended
        if code == grpc.StatusCode.DEADLINE_EXCEEDED:
            return self._timeout_error()
        failure = server_log.load_failure(model, details)
        hint = ""
        if failure.reason.startswith("ModuleNotFoundError"):
            hint = f"; install the module for {sys.executable}"
        elif not failure.raised_at:
            # Without a traceback the answer alone says little: "is not healthy", "not available or ambiguous".
            hint = server_log.last_words(self.log_tail())
        return f"{failure}{hint}; {server_log.where(self.log_path)}"


def _remaining_s(deadline: float) -> float:
    """Return the time left until `deadline`, but at least enough for a call to report that it is over."""
    return max(0.1, deadline - time.monotonic())
