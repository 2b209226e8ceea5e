"""Watches over an embedded server that runs for long.

When the process of a Python model has died, Triton goes on saying that it is ready, and fails every request to that
model. The supervisor notices the death and reloads the model.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable

import grpc

from triptych.errors import ServerCrashed
from triptych.serving import log as server_log
from triptych.serving.processes import ModelProcess
from triptych.serving.server import TritonServer

INTERVAL_S = 0.25
"""Time between two checks. A model is reloaded at the second check that sees a death."""

MAX_DEATHS = 5
"""At this many deaths of one model within `DEATHS_WINDOW_S` the supervisor gives up instead of reloading it."""

DEATHS_WINDOW_S = 60.0

_logger = logging.getLogger("triptych.serving")


class Supervisor:
    """Reloads the models of one server when their processes die, and reports it.

    A model is short of processes when fewer are alive than the configuration says that the server uses for it. A
    reload by somebody else is no shortage: Triton starts the new processes before it ends the old ones, and before it
    unloads a model or takes an instance away it stops counting it. The second check covers the moment between reading
    the processes and asking the server.
    """

    def __init__(self, server: TritonServer, report: Callable[[str], None]) -> None:
        """Watch over `server`, which is ready. `report` gets a line for each model that was reloaded."""
        self._server = server
        self._report = report
        self._complete: list[ModelProcess] = []
        self._suspect: tuple[list[ModelProcess], list[str]] | None = None
        self._deaths: defaultdict[str, deque[float]] = defaultdict(deque)

    def watch(self, stop: threading.Event) -> None:
        """Check until `stop` is set.

        Raises:
            ServerCrashed: as `check` does.
        """
        self.check()
        while not stop.wait(INTERVAL_S):
            self.check()

    def check(self) -> None:
        """Look once at the server and its models, and reload those that were short of processes twice in a row.

        Raises:
            ServerCrashed: the server is gone, a model does not load any more, or it dies again and again.
        """
        self._server.raise_if_ended()
        processes = self._server.processes()
        if processes == self._complete:
            return
        try:
            short = self._short_of(processes)
        except grpc.RpcError:
            return  # it is busy, or it is ending and the next check says so
        if not short:
            self._complete, self._suspect = processes, None
        elif self._suspect != (processes, short):
            self._suspect = (processes, short)
        else:
            self._suspect = None
            for model in short:
                self._reload(model, processes)

    def _short_of(self, processes: list[ModelProcess]) -> list[str]:
        """Return the models with fewer processes than they should have."""
        alive = Counter((process.model, process.version) for process in processes)
        served = self._server.served()
        return sorted({model for (model, version), count in served.items() if alive[model, version] < count})

    def _reload(self, model: str, processes: list[ModelProcess]) -> None:
        died = [process.pid for process in self._complete if process.model == model and process not in processes]
        who = f"its process{'es' if len(died) > 1 else ''} {', '.join(map(str, died))}".rstrip()
        now = time.monotonic()
        deaths = self._deaths[model]
        deaths.append(now)
        while now - deaths[0] > DEATHS_WINDOW_S:
            deaths.popleft()
        if len(deaths) >= MAX_DEATHS:
            raise ServerCrashed(
                f"{model} died {len(deaths)} times within {now - deaths[0]:.0f} s"
                f"{server_log.last_words(self._server.log_tail())}; the whole log is {self._server.log_path}"
            )
        took_s = self._server.reload(model)
        line = f"{model}: {who} died; reloaded in {took_s:.1f} s"
        _logger.warning(line)
        self._report(line)
