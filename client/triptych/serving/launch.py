"""Starts the process of the embedded server: Triton's command line, and how its life is tied to ours."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from triptych.contract import STAGES
from triptych.serving.listening import Listening
from triptych.serving.mps import mps_environment
from triptych.serving.preflight import Installation
from triptych.serving.scratch import is_word
from triptych.serving.stages.time_limit import EXECUTE_WITHIN_S, VARIABLE
from triptych.wire.access import KEY_NAME, RESTRICTED

NO_RATE = 2**31 - 1
"""Of how many requests Triton traces one by itself. It traces every one that comes with a `traceparent`."""

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
        listening: where it listens.
        scratch: an empty directory for its backends and traces.
        shm_prefix: how its regions of shared memory, and the command lines of its model processes, are marked.
        key: without it the server does not load models, register shared memory or change the settings of traces.
        exit_timeout_s: how long it waits for requests in flight as it ends, and for models that will never answer.
        otel_url: where it sends its traces by OpenTelemetry; None: it writes them to files when a client asks for them.
        pool_options: for the memory of GPUs that pixels stay in between the stages.
    """

    installation: Installation
    server_id: str
    model_repository: Path
    listening: Listening
    scratch: Path
    shm_prefix: str
    key: str
    exit_timeout_s: int
    otel_url: str | None = None
    pool_options: Sequence[str] = ()

    def start(self, log: BinaryIO) -> subprocess.Popen[bytes]:
        """Lay out the scratch directory and start Triton, which writes to `log`.

        The server ends with this process if this is the main thread. The kernel ties a child to the thread that
        made it, so a server that another thread starts is not tied to anything.
        """
        self.installation.link_backends(self.backends)
        self.traces.mkdir()
        self.twins.mkdir()
        if self.repository == self.link:
            self.link.symlink_to(self.model_repository.resolve(), target_is_directory=True)
        tied_to = os.getpid() if threading.current_thread() is threading.main_thread() else 0
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _TIE, str(tied_to), *self.command()],
            env=self.environment(),
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
    def link(self) -> Path:
        """A link to the model repository whose name a shell takes as one word."""
        return self.scratch / "models"

    @property
    def repository(self) -> Path:
        """The model repository by a name that Triton can start model processes with: it puts it into a shell's line."""
        directory = self.model_repository.resolve()
        return directory if is_word(directory) else self.link

    @property
    def traces(self) -> Path:
        """Where Triton writes its traces."""
        return self.scratch / "traces"

    def environment(self) -> dict[str, str]:
        """Return the server's environment. OpenVINO needs a home to write in: without one, the scratch directory."""
        environment = {
            **self.installation.environment(),
            **mps_environment(self.scratch),
            VARIABLE: str(EXECUTE_WITHIN_S),
        }
        if not os.access(os.path.expanduser("~"), os.W_OK | os.X_OK):  # noqa: PTH111  (pathlib raises without a home)
            environment["HOME"] = str(self.scratch)
        return environment

    @property
    def twins(self) -> Path:
        """A second model repository, which is empty but within `no_stage_loads`."""
        return self.scratch / "twins"

    @contextlib.contextmanager
    def no_stage_loads(self) -> Iterator[None]:
        """Keep the stages from loading within the block: Triton loads no model that is in two repositories."""
        twins = [self.twins / stage.name for stage in STAGES]
        for twin in twins:
            twin.mkdir()
        try:
            yield
        finally:
            for twin in twins:
                twin.rmdir()

    def command(self) -> list[str]:
        """Return Triton's command line."""
        return [
            str(self.installation.binary),
            *("--id", self.server_id),
            *("--model-repository", str(self.repository)),
            *("--model-repository", str(self.twins)),
            *("--backend-directory", str(self.backends)),
            # Starting empty and loading through the API gives the reason of a failure back as its answer.
            *("--model-control-mode", "explicit"),
            # Ours are complete, and completing them costs a second per load: Triton starts every model twice.
            "--disable-auto-complete-config",
            *self.listening.options(f"{','.join(RESTRICTED)}:{KEY_NAME}={self.key}"),
            *(self.listening.tls.options(self.scratch) if self.listening.tls else ()),
            "--allow-gpu-metrics=false",
            *self.pool_options,
            *(part for setting in self._traces() for part in ("--trace-config", setting)),
            *("--exit-timeout-secs", str(self.exit_timeout_s)),
            f"--backend-config=python,shm-region-prefix-name={self.shm_prefix}",
        ]

    def _traces(self) -> tuple[str, ...]:
        """Return the settings of traces; where they go can be set only at the start."""
        if self.otel_url is None:
            return (f"triton,file={self.traces / 'trace'}", "level=OFF")  # off until a client asks for them
        return (
            "mode=opentelemetry",
            f"opentelemetry,url={self.otel_url}",
            "opentelemetry,resource=service.name=triptych",
            "opentelemetry,bsp_schedule_delay=1000",
            "level=TIMESTAMPS",
            f"rate={NO_RATE}",
        )
