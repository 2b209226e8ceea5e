"""When the supervisor reloads a model, and when it gives up, with a server whose processes the test chooses."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import grpc
import pytest

from triptych.errors import ServerCrashed
from triptych.serving import TritonServer
from triptych.serving import supervisor as supervisor_module
from triptych.serving.processes import ModelProcess
from triptych.serving.supervisor import MAX_DEATHS, Supervisor


class Clock:
    """Stands for `time`."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


class Server:
    """Stands for a server of one detector that should have two processes."""

    log_path = Path("/log")

    def __init__(self) -> None:
        self.alive = [10, 11]
        self.is_busy = False
        self.reloads = 0
        self.gone: list[str] = []
        self.log = "ValueError: no weights\n"
        self.calls: list[str] = []

    @property
    def control(self) -> Server:
        return self

    def unloaded(self) -> list[str]:
        return list(self.gone)

    def restore(self, model: str) -> float:
        self.calls.append(f"restore {model}")
        # A stage brings the ensemble back.
        self.gone = [name for name in self.gone if name not in (model, "detection")]
        return 0.5

    def kill(self) -> None:
        self.calls.append("kill")

    def raise_if_ended(self) -> None:
        if not self.alive:
            raise ServerCrashed("the server is gone")

    def processes(self) -> list[ModelProcess]:
        return [ModelProcess(pid, "detector", "1") for pid in self.alive]

    def served(self) -> dict[tuple[str, str], int]:
        if self.is_busy:
            raise grpc.RpcError
        return {("detector", "1"): 2, ("detection", "1"): 0}

    def reload(self, model: str) -> float:
        assert model == "detector"
        self.reloads += 1
        self.alive = [max(self.alive) + 1, max(self.alive) + 2]
        return 1.25

    def log_tail(self) -> str:
        return self.log


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def lines() -> list[str]:
    return []


class Checks:
    """What the server and its stages answer, in place of `Liveness` and `Canary`."""

    silent = ""
    hangs: str | None = None

    def liveness(self) -> None:
        if self.silent:
            raise ServerCrashed(self.silent)

    def canary(self) -> str | None:
        hangs, self.hangs = self.hangs, None
        return hangs

    def reset(self) -> None:
        pass


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> Checks:
    checks = Checks()
    for name in ("Liveness", "Canary"):
        check = getattr(checks, name.lower())
        stand_in = SimpleNamespace(check=check, is_sure=True, within_s=10.0, reset=checks.reset)
        monkeypatch.setattr(supervisor_module, name, lambda control, stand_in=stand_in: stand_in)
    return checks


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The processes that the supervisor kills."""
    pids: list[int] = []
    monkeypatch.setattr(
        supervisor_module, "kill_processes", lambda processes: pids.extend(process.pid for process in processes)
    )
    return pids


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(supervisor_module, "time", clock)
    return clock


@pytest.fixture
def supervisor(server: Server, lines: list[str], checks: Checks) -> Supervisor:
    supervisor = Supervisor(cast(TritonServer, server), lines.append)
    supervisor.check()
    return supervisor


def test_a_death_is_reported_and_logged_at_the_second_check(
    server: Server, supervisor: Supervisor, lines: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    server.alive = [11]
    supervisor.check()
    assert server.reloads == 0
    with caplog.at_level(logging.WARNING, "triptych"):
        supervisor.check()
    assert lines == ["detector: its process 10 died; reloaded in 1.2 s"]
    assert caplog.record_tuples == [("triptych.serving", logging.WARNING, lines[0])]


def test_a_process_that_is_late_is_not_dead(server: Server, supervisor: Supervisor, lines: list[str]) -> None:
    server.alive = [11]
    supervisor.check()
    server.alive = [11, 12]
    supervisor.check()
    supervisor.check()
    assert (server.reloads, lines) == (0, [])


def test_a_server_that_is_busy_is_asked_again(server: Server, supervisor: Supervisor) -> None:
    server.alive = [11]
    supervisor.check()
    server.is_busy = True
    supervisor.check()
    assert server.reloads == 0
    server.is_busy = False
    supervisor.check()
    assert server.reloads == 1


def test_too_many_deaths_end_it(server: Server, supervisor: Supervisor) -> None:
    for _ in range(MAX_DEATHS - 1):
        server.alive = server.alive[:1]
        supervisor.check()
        supervisor.check()
        supervisor.check()
    assert server.reloads == MAX_DEATHS - 1
    server.alive = server.alive[:1]
    supervisor.check()
    with pytest.raises(
        ServerCrashed,
        match=r"^detector died 5 times within 0 s; the last errors in its log: ValueError: no weights; the whole log",
    ):
        supervisor.check()


def test_a_server_that_is_gone_ends_it(server: Server, supervisor: Supervisor) -> None:
    server.alive = []
    with pytest.raises(ServerCrashed, match="gone"):
        supervisor.check()


def test_a_stage_that_hangs_is_ended_and_reloaded(
    server: Server, supervisor: Supervisor, checks: Checks, killed: list[int], lines: list[str]
) -> None:
    checks.hangs = "detector"
    supervisor.check()
    assert killed == [10, 11]
    assert lines == ["detector: no answer within 10 s; ended its processes 10, 11; reloaded in 1.2 s"]
    for _ in range(MAX_DEATHS - 2):
        checks.hangs = "detector"
        supervisor.check()
    checks.hangs = "detector"
    with pytest.raises(ServerCrashed, match="detector died 5 times"):
        supervisor.check()


def test_a_stopped_process_is_ended_at_the_second_look(
    server: Server,
    supervisor: Supervisor,
    clock: Clock,
    killed: list[int],
    lines: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor_module, "stopped_processes", lambda processes: processes[:1])
    clock.now += 1
    supervisor.check()
    assert killed == []
    supervisor.check()  # too soon
    assert killed == []
    clock.now += 1
    supervisor.check()
    assert killed == [10]
    assert lines == ["detector: ended its process 10, which stood still; reloaded in 1.2 s"]


def test_what_somebody_unloads_is_loaded_again_at_the_second_look(
    server: Server, supervisor: Supervisor, clock: Clock, lines: list[str]
) -> None:
    server.gone = ["detection", "postprocess", "somebody_elses"]
    clock.now += 1
    supervisor.check()
    assert server.calls == []
    clock.now += 1
    supervisor.check()
    assert server.calls == ["restore postprocess"]
    assert lines == ["postprocess: somebody unloaded it; loaded again in 0.5 s"]
    server.gone = ["detection"]
    for _ in range(2):
        clock.now += 1
        supervisor.check()
    assert server.calls == ["restore postprocess", "restore detection"]


def test_a_model_that_is_unloaded_for_a_moment_is_left_alone(
    server: Server, supervisor: Supervisor, clock: Clock
) -> None:
    for gone in (["detection"], [], ["postprocess"], ["detection"]):
        server.gone = gone
        clock.now += 1
        supervisor.check()
    assert server.calls == []


def test_a_silent_server_is_killed(server: Server, supervisor: Supervisor, checks: Checks) -> None:
    checks.silent = "the server runs, but has not answered for 9 s"
    with pytest.raises(ServerCrashed, match="not answered for 9 s; it was killed; the last errors in its log: Value"):
        supervisor.check()
    assert server.calls == ["kill"]


def test_a_server_that_hangs_as_it_crashes_is_killed(server: Server, supervisor: Supervisor, clock: Clock) -> None:
    server.log = "corrupted double-linked list\nSignal (6) received.\n"
    for _ in range(3):
        clock.now += 1
        supervisor.check()
    assert server.calls == []
    clock.now += 1
    with pytest.raises(ServerCrashed, match=r"^the server crashed \(SIGABRT\), and hangs as it ends; it was killed"):
        supervisor.check()
    assert server.calls == ["kill"]
