"""When a call is tried again, and until when, on a clock that the test sets."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import StatusCode as Code

from support.fake_server import LOST, QUEUE_FULL, UNHEALTHY, Fault
from triptych.errors import (
    DeadlineExceeded,
    ServerFault,
    ServerUnavailable,
    TriptychError,
)
from triptych.vision.inputs import Encoded
from triptych.wire.effects import Call, Sleep, Work
from triptych.wire.session import Session

RELOADING = Fault(Code.UNAVAILABLE, "Request for unknown model: 'detection' has no available versions")


class Conversation:
    """Drives a flow: takes each effect, answers from a script, and keeps the time."""

    def __init__(self, *answers: Fault | Any, retries: int = 2, call_s: float = 0.0) -> None:
        self.now_s = 100.0
        self.session = Session(["host:1"], "detection", 10.0, retries, clock=lambda: self.now_s, jitter=lambda: 1.0)
        self.answers = list(answers)
        self.call_s = call_s
        self.sleeps: list[float] = []
        self.deadlines: list[float] = []

    def run(self, flow: Any) -> Any:
        resume: Callable[[], Any] = lambda: next(flow)  # noqa: E731
        try:
            while True:
                resume = self.outcome(flow, resume())
        except StopIteration as end:
            return end.value

    def outcome(self, flow: Any, effect: Any) -> Callable[[], Any]:
        if isinstance(effect, Sleep):
            self.sleeps.append(effect.seconds)
            self.now_s += effect.seconds
            return lambda: flow.send(None)
        if isinstance(effect, Work):  # which looks for the reason of a lost connection
            error, *_ = effect.function.args  # type: ignore[attr-defined]
            return lambda: flow.send(error)
        assert isinstance(effect, Call)
        self.deadlines.append(effect.timeout_s)
        self.now_s += self.call_s
        answer = self.answers.pop(0)
        if isinstance(answer, Fault):
            return lambda: flow.throw(FakeRpcError(answer))
        return lambda: flow.send(answer)


class FakeRpcError(grpc.RpcError):  # type: ignore[misc]  # gRPC has no types
    def __init__(self, fault: Fault) -> None:
        self.fault = fault

    def code(self) -> Code:
        return self.fault.code

    def details(self) -> str:
        return self.fault.details


class Version:
    version = "2.51.0"


@pytest.mark.parametrize(
    ("fault", "retries", "sleeps"),
    [
        (LOST, 5, [0.1, 0.3, 0.9, 2.7, 3.0]),
        (RELOADING, 3, [0.6, 1.8, 3.0]),
        (UNHEALTHY, 1, [2.6]),
    ],
    ids=["lost", "reloading", "unhealthy"],
)
def test_pauses_grow_to_a_limit(fault: Fault, retries: int, sleeps: list[float]) -> None:
    talk = Conversation(*[fault] * retries, Version, retries=retries)
    assert talk.run(talk.session.server_version()) == "2.51.0"
    assert talk.sleeps == pytest.approx(sleeps)
    # Each try is given what is left of one deadline.
    assert talk.deadlines == pytest.approx([10.0 - sum(sleeps[:i]) for i in range(retries + 1)])


def test_default_retries_outlast_the_restart_of_a_process() -> None:
    for faults in ([RELOADING, RELOADING], [UNHEALTHY], [UNHEALTHY, RELOADING]):
        talk = Conversation(*faults, Version)
        talk.session.jitter = lambda: 0.75
        talk.run(talk.session.server_version())
        assert sum(talk.sleeps) > 1.5


def test_a_request_that_sees_two_processes_die_is_not_sent_again() -> None:
    talk = Conversation(UNHEALTHY, RELOADING, UNHEALTHY, Version, retries=9)
    with pytest.raises(
        ServerFault, match=r"died at host:1 each time it got this request.*send them one at a time"
    ) as caught:
        talk.run(talk.session.server_version())
    assert caught.value.process_died
    assert len(talk.answers) == 1


def test_a_death_is_told_from_another_fault() -> None:
    for fault, died in ((UNHEALTHY, True), (Fault(Code.INTERNAL, "out of memory"), False)):
        talk = Conversation(fault, retries=0)
        with pytest.raises(ServerFault) as caught:
            talk.run(talk.session.server_version())
        assert caught.value.process_died is died


def test_retries_end() -> None:
    talk = Conversation(*[LOST] * 3)
    with pytest.raises(ServerUnavailable):
        talk.run(talk.session.server_version())
    assert len(talk.sleeps) == 2


def test_no_retry_beyond_the_deadline() -> None:
    """The error comes at once, and not after a pause that would outlast the deadline."""
    talk = Conversation(LOST, LOST, call_s=9.8)
    with pytest.raises(ServerUnavailable):
        talk.run(talk.session.server_version())
    assert talk.sleeps == pytest.approx([0.1])
    assert talk.deadlines == pytest.approx([10.0, 0.1])


def test_deadline_covers_the_reading_of_files(tmp_path: Path) -> None:
    talk = Conversation()
    flow = talk.session.detect(tmp_path / "a.jpg", None, None, 3.0, "")
    assert isinstance(next(flow), Work)
    talk.now_s += 2.0
    effect = flow.send(Encoded(b"a"))
    assert isinstance(effect, Call)
    assert effect.timeout_s == pytest.approx(1.0)


def test_a_file_that_outlasts_the_deadline_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"a")
    talk = Conversation()
    effect = next(talk.session.detect(path, None, None, 3.0, ""))
    assert isinstance(effect, Work)
    talk.now_s += 3.1
    with pytest.raises(DeadlineExceeded, match=r"a.jpg was not read within 3 s; allow more time"):
        effect.function()


def test_a_queue_may_take_a_third_of_the_time_that_is_left() -> None:
    talk = Conversation()
    flow = talk.session.detect(b"a", None, None, 6.0, "")
    first = next(flow)
    assert isinstance(first, Call)
    assert first.request.parameters["timeout"].int64_param == pytest.approx(2_000_000, abs=1)
    assert flow.throw(FakeRpcError(LOST)) == Sleep(0.1)
    talk.now_s += 3.0
    again = flow.send(None)
    assert isinstance(again, Call)
    assert again.request.parameters["timeout"].int64_param == pytest.approx(1_000_000, abs=1)


def test_nothing_but_an_image_waits_in_a_queue() -> None:
    asked = next(Conversation().session.server_version())
    assert isinstance(asked, Call)
    assert not hasattr(asked.request, "parameters")


@pytest.mark.parametrize(
    "fault", [QUEUE_FULL, *(Fault(code, "x") for code in Code if code not in (Code.OK, Code.UNAVAILABLE))], ids=str
)
def test_what_is_not_tried_again(fault: Fault) -> None:
    talk = Conversation(fault)
    with pytest.raises(TriptychError):
        talk.run(talk.session.server_version())
    assert len(talk.deadlines) == 1


def test_readiness_is_one_try(caplog: pytest.LogCaptureFixture) -> None:
    talk = Conversation(LOST)
    assert talk.run(talk.session.is_ready()) is False
    assert caplog.messages == []


def test_every_retry_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    talk = Conversation(LOST, RELOADING, Version)
    talk.run(talk.session.server_version())
    assert caplog.messages == [
        "try 1 of 3 of ServerMetadata failed, the next one follows in 0.10 s: "
        "the server at host:1 is not available: Socket closed",
        "try 2 of 3 of ServerMetadata failed, the next one follows in 1.80 s: the server at host:1 does not serve the "
        "model 'detection': Request for unknown model: 'detection' has no available versions",
    ]
    assert {(record.name, record.levelno) for record in caplog.records} == {("triptych.wire.session", logging.WARNING)}


def test_a_call_without_retries_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    talk = Conversation(QUEUE_FULL)
    with pytest.raises(TriptychError):
        talk.run(talk.session.server_version())
    assert caplog.messages == []
