"""When the supervisor reloads a model, and when it gives up, with a server whose processes the test chooses."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import cast

import grpc
import pytest

from triptych.errors import ServerCrashed
from triptych.serving import TritonServer
from triptych.serving.processes import ModelProcess
from triptych.serving.supervisor import MAX_DEATHS, Supervisor


class Server:
    """Stands for a server of one detector that should have two processes."""

    log_path = Path("/log")

    def __init__(self) -> None:
        self.alive = [10, 11]
        self.is_busy = False
        self.reloads = 0

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
        return "ValueError: no weights\n"


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def supervisor(server: Server, lines: list[str]) -> Supervisor:
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
