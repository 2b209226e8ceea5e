"""Watches over an embedded server that runs for long.

When the process of a Python model has died or hangs, Triton goes on saying that it is ready, and fails every request to
that model or never answers it. The supervisor notices and reloads the model. A model that somebody unloaded is loaded
again. A server that is dead or does not answer is the end, with the reason.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence

import grpc

from triptych.contract import DETECTION, MODELS
from triptych.errors import ServerCrashed
from triptych.serving import log as server_log
from triptych.serving.health import ASK_EVERY_S, Canary, Liveness
from triptych.serving.processes import ModelProcess, kill_processes, stopped_processes
from triptych.serving.server import TritonServer

INTERVAL_S = 0.25
"""Time between two checks. A model is reloaded at the second check that sees a death."""

MAX_DEATHS = 5
"""At this many deaths of one model within `DEATHS_WINDOW_S` the supervisor gives up instead of reloading it."""

DEATHS_WINDOW_S = 60.0

ABORTED_FOR_S = 3.0
"""How long a server may take to end after its log says that a signal ended it."""

_logger = logging.getLogger("triptych.serving")


class Supervisor:
    """Reloads the models of one server when their processes die or hang, and reports it.

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
        self._liveness, self._canary = Liveness(server.control), Canary(server.control)
        self._looked = 0.0
        self._odd: tuple[list[ModelProcess], list[str]] = ([], [])
        self._aborted: float | None = None

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
            ServerCrashed: the server is gone or hangs, a model does not load any more, or it dies again and again.
        """
        self._server.raise_if_ended()
        try:
            self._liveness.check()
        except ServerCrashed as error:
            self._give_up(str(error))
        self._check_deaths()
        if self._liveness.is_sure:
            self._check_canary()
        if self._liveness.is_sure and time.monotonic() - self._looked >= ASK_EVERY_S:
            self._looked = time.monotonic()
            self._check_log()
            self._check_oddities()

    def _check_deaths(self) -> None:
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
                died = [process for process in self._complete if process.model == model and process not in processes]
                self._reload(model, f"{_who(died)} died")

    def _check_canary(self) -> None:
        """End and reload a stage that does not answer."""
        try:
            hangs = self._canary.check()
        except grpc.RpcError:
            return
        if hangs is not None:
            processes = [process for process in self._server.processes() if process.model == hangs]
            kill_processes(processes)
            self._reload(hangs, f"no answer within {self._canary.within_s:.0f} s; ended {_who(processes)}")

    def _check_log(self) -> None:
        """Give up on a server that was ended by a signal, by its log, and lives on: it hangs as it ends."""
        if (crash := server_log.fatal_signal(self._server.log_tail())) is None:
            return
        now = time.monotonic()
        self._aborted = self._aborted or now
        if now - self._aborted >= ABORTED_FOR_S:
            self._give_up(f"the server crashed ({crash}), and hangs as it ends")

    def _check_oddities(self) -> None:
        """Reload models whose processes were stopped, and load models that were unloaded, seen twice in a row."""
        try:
            unloaded = [model.name for model in MODELS if model.name in self._server.control.unloaded()]
        except grpc.RpcError:
            return
        now, before = (stopped_processes(self._server.processes()), unloaded), self._odd
        self._odd = now
        for model in sorted({process.model for process in now[0] if process in before[0]}):
            stopped = [process for process in now[0] if process.model == model]
            kill_processes(stopped)
            self._reload(model, f"ended {_who(stopped)}, which stood still")
        # A stage takes the ensemble with it as it goes, and brings it back.
        for model in sorted(set(now[1]) & set(before[1]), key=DETECTION.name.__eq__):
            if model in self._server.control.unloaded():
                took_s = self._server.restore(model)
                self._say(f"{model}: somebody unloaded it; loaded again in {took_s:.1f} s")

    def _short_of(self, processes: list[ModelProcess]) -> list[str]:
        """Return the models with fewer processes than they should have."""
        alive = Counter((process.model, process.version) for process in processes)
        served = self._server.served()
        return sorted({model for (model, version), count in served.items() if alive[model, version] < count})

    def _reload(self, model: str, why: str) -> None:
        now = time.monotonic()
        deaths = self._deaths[model]
        deaths.append(now)
        while now - deaths[0] > DEATHS_WINDOW_S:
            deaths.popleft()
        if len(deaths) >= MAX_DEATHS:
            raise ServerCrashed(
                f"{model} died {len(deaths)} times within {now - deaths[0]:.0f} s"
                f"{server_log.last_words(self._server.log_tail())}; {server_log.where(self._server.log_path)}"
            )
        took_s = self._server.reload(model)
        self._canary.reset()
        self._say(f"{model}: {why}; reloaded in {took_s:.1f} s")

    def _say(self, line: str) -> None:
        _logger.warning(line)
        self._report(line)

    def _give_up(self, why: str) -> None:
        log = self._server.log_tail()
        self._server.kill()  # it would not hear that it should stop
        raise ServerCrashed(
            f"{why}; it was killed{server_log.last_words(log)}; {server_log.where(self._server.log_path)}"
        )


def _who(processes: Sequence[ModelProcess]) -> str:
    pids = ", ".join(str(process.pid) for process in processes)
    return f"its process{'es' if len(processes) > 1 else ''} {pids}".rstrip()
