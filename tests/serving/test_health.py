"""Whether a server and its stages answer, with answers and a clock that the test chooses."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import grpc
import pytest

from triptych.errors import ServerCrashed
from triptych.serving import health
from triptych.serving.health import CANARY_WITHIN_S, IDLE_FOR_S, Canary, Liveness
from triptych.wire.model_control import ModelControl
from triptych.wire.statistics import Counters, Snapshot

STAGES = ("preprocess", "detector", "postprocess")


class Failed(grpc.RpcError):  # type: ignore[misc]  # gRPC has no types
    def __init__(self, code: grpc.StatusCode, details: str = "") -> None:
        self._code, self._details = code, details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details


LATE = Failed(grpc.StatusCode.DEADLINE_EXCEEDED)


class Answer:
    """An answer that comes later, as gRPC has it."""

    def __init__(self) -> None:
        self.is_done = self.is_cancelled = False
        self.error: Failed | None = None

    def come(self, error: Failed | None = None) -> None:
        self.is_done, self.error = True, error

    def done(self) -> bool:
        return self.is_done

    def exception(self) -> Failed | None:
        return self.error

    def cancel(self) -> None:
        self.is_cancelled = True


class Server:
    """Stands for the control interface, and for the clock."""

    def __init__(self) -> None:
        self.now = 100.0
        self.asked: list[Answer] = []
        self.timeouts: list[float] = []
        self.counts = dict.fromkeys(STAGES, 0)

    def monotonic(self) -> float:
        return self.now

    def ask_live(self, timeout_s: float) -> Answer:
        return self.ask(None, timeout_s)

    def ask(self, request: object, timeout_s: float) -> Answer:
        self.asked.append(Answer())
        self.timeouts.append(timeout_s)
        return self.asked[-1]

    def statistics(self) -> Snapshot:
        return {stage: Counters(requests=count, executions=count) for stage, count in self.counts.items()}

    def pass_stages(self, *stages: str) -> None:
        for stage in stages:
            self.counts[stage] += 1


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server()
    monkeypatch.setattr(health, "time", server)
    return server


def after(server: Server, seconds: float, check: Callable[[], object]) -> object:
    server.now += seconds
    return check()


# The server.


@pytest.fixture
def liveness(server: Server) -> Liveness:
    return Liveness(cast(ModelControl, server))


def test_a_server_that_answers_is_asked_every_second(server: Server, liveness: Liveness) -> None:
    for _ in range(20):
        after(server, 1, liveness.check)
        server.asked[-1].come()
    assert len(server.asked) == 20
    assert liveness.is_sure


def test_one_late_answer_is_not_the_end(server: Server, liveness: Liveness) -> None:
    after(server, 1, liveness.check)
    server.asked[-1].come(LATE)
    after(server, 100, liveness.check)  # this process was stopped meanwhile
    assert not liveness.is_sure
    server.asked[-1].come()
    after(server, 1, liveness.check)
    assert liveness.is_sure


def test_a_silent_server_is_the_end_within_seconds(server: Server, liveness: Liveness) -> None:
    after(server, 1, liveness.check)
    server.asked[-1].come(LATE)
    after(server, 4, liveness.check)
    server.asked[-1].come(LATE)
    with pytest.raises(ServerCrashed, match="the server runs, but has not answered for 9 s"):
        after(server, 4, liveness.check)


# Its stages.


@pytest.fixture
def canary(server: Server) -> Canary:
    canary = Canary(cast(ModelControl, server))
    assert canary.check() is None  # the first image goes at once
    server.pass_stages(*STAGES)
    server.asked[-1].come()
    assert after(server, 0.1, canary.check) is None
    return canary


def test_nothing_is_sent_while_others_have_answers(server: Server, canary: Canary) -> None:
    for _ in range(60):
        server.pass_stages(*STAGES)
        assert after(server, 1, canary.check) is None
    assert len(server.asked) == 1


def test_an_idle_server_is_asked_now_and_then(server: Server, canary: Canary) -> None:
    for _ in range(60):
        assert after(server, 1, canary.check) is None
        if not server.asked[-1].done():
            server.pass_stages(*STAGES)
            server.asked[-1].come()
    assert 4 <= len(server.asked) <= 7


@pytest.mark.parametrize(("passed", "hangs"), [(0, "preprocess"), (1, "detector"), (2, "postprocess"), (3, None)])
def test_the_first_stage_that_counts_nothing_hangs(
    server: Server, canary: Canary, passed: int, hangs: str | None
) -> None:
    for _ in range(int(IDLE_FOR_S) + 2):
        after(server, 1, canary.check)
    assert len(server.asked) == 2
    server.pass_stages(*STAGES[:passed])
    assert after(server, 1, canary.check) is None
    server.asked[-1].come(LATE)
    assert after(server, CANARY_WITHIN_S, canary.check) == hangs


def test_a_full_queue_does_not_hide_a_stage_that_hangs(server: Server, canary: Canary) -> None:
    refused = Failed(grpc.StatusCode.UNAVAILABLE, "in ensemble 'detection', Exceeds maximum queue size")
    hangs: list[object] = []
    for _ in range(int(IDLE_FOR_S + CANARY_WITHIN_S) + 2):
        server.pass_stages("preprocess")
        hangs.append(after(server, 1, canary.check))
        if not server.asked[-1].done():
            server.asked[-1].come(refused)
    assert hangs.count("detector") == 1
    assert server.timeouts[1] > server.timeouts[2], "all of them together have the time of one"


def test_a_full_queue_that_moves_is_no_hang(server: Server, canary: Canary) -> None:
    refused = Failed(grpc.StatusCode.UNAVAILABLE, "in ensemble 'detection', Exceeds maximum queue size")
    for _ in range(60):
        server.pass_stages(*STAGES)
        assert after(server, 1, canary.check) is None
        server.asked[-1].come(refused)


def test_requests_that_nobody_answers_do_not_hide_a_stage_that_hangs(server: Server, canary: Canary) -> None:
    for _ in range(int(IDLE_FOR_S) + 2):
        server.pass_stages("preprocess")
        after(server, 1, canary.check)
    server.asked[-1].come(LATE)
    assert after(server, CANARY_WITHIN_S, canary.check) == "detector"


@pytest.mark.parametrize("code", [grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNAVAILABLE])
def test_a_refusal_is_an_answer(server: Server, canary: Canary, code: grpc.StatusCode) -> None:
    for _ in range(int(IDLE_FOR_S) + 2):
        after(server, 1, canary.check)
    server.asked[-1].come(Failed(code))
    assert after(server, 1, canary.check) is None


def test_slow_stages_have_more_time(server: Server) -> None:
    canary = Canary(cast(ModelControl, server))
    canary.check()
    server.asked[-1].come()
    after(server, 2, canary.check)
    assert canary.within_s == 96
    for _ in range(int(IDLE_FOR_S) + 2):
        after(server, 1, canary.check)
    assert server.timeouts == [CANARY_WITHIN_S, 96]


def test_the_image_on_its_way_is_forgotten_when_a_model_is_reloaded(server: Server) -> None:
    canary = Canary(cast(ModelControl, server))
    canary.check()
    canary.reset()
    assert server.asked[-1].is_cancelled
    server.asked[-1].come(LATE)
    assert after(server, 1, canary.check) is None
