"""When a user sends, on a clock that the test moves."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from triptych.errors import ServerUnavailable
from triptych_loadtest import loops
from triptych_loadtest.load_test import LoadProfile
from triptych_loadtest.loops import PAUSE_S, CameraLoop, ClosedLoop, FrameDropped, OpenLoop, RequestUnsent


@dataclass
class Clock:
    """Stands for `time.monotonic`, in seconds."""

    now: float = 0.0


@dataclass
class User:
    """Answers take a fixed time."""

    clock: Clock
    answer_s: float
    failure: Exception | None = None
    number: str = "0-0"
    due: list[float] = field(default_factory=list)
    sent_at: list[float] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    unsent: int = 0

    def request(self, due: float) -> Exception | None:
        self.due.append(due)
        self.sent_at.append(self.clock.now)
        self.clock.now += self.answer_s
        return self.failure

    def report(self, name: str, latency_ms: float | None, failure: Exception, request_id: str) -> None:
        assert (latency_ms, request_id) == (None, "")
        if isinstance(failure, FrameDropped):
            assert name == "frame"
            self.dropped.append(str(failure))
        else:
            assert isinstance(failure, RequestUnsent)
            self.unsent += 1


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("triptych_loadtest.loops.time.monotonic", lambda: clock.now)
    monkeypatch.setattr("triptych_loadtest.loops.random.Random.uniform", lambda _self, low, _high: low)
    return clock


def run_until(loop: loops.Loop, clock: Clock, end_s: float) -> None:
    """Do as a user does: wait until the next request is due, and send it."""
    loop.begin(clock.now, end_s)
    while (due := max(clock.now, loop.due)) < end_s:
        clock.now = due
        loop.send()


def test_a_closed_loop_sends_when_the_answer_is_there(clock: Clock) -> None:
    user: Any = User(clock, answer_s=0.25)
    run_until(ClosedLoop(LoadProfile(), user), clock, 1)
    assert user.sent_at == user.due == [0, 0.25, 0.5, 0.75]


def test_a_closed_loop_pauses_where_no_server_answers(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    def sleep(seconds: float) -> None:
        clock.now += seconds

    monkeypatch.setattr("triptych_loadtest.loops.gevent.sleep", sleep)
    user: Any = User(clock, 0.0, ServerUnavailable("no server answers", grpc.StatusCode.UNAVAILABLE))
    run_until(ClosedLoop(LoadProfile(), user), clock, 1)
    assert user.sent_at == pytest.approx([number * PAUSE_S for number in range(len(user.sent_at))])
    assert 10 <= len(user.sent_at) <= 11


def test_a_slow_camera_loses_no_frame(clock: Clock) -> None:
    user: Any = User(clock, answer_s=0.1)
    run_until(CameraLoop(LoadProfile(fps=4), user), clock, 2)
    assert user.sent_at == user.due == [number / 4 for number in range(8)]
    assert user.dropped == []


def test_a_camera_that_is_faster_than_the_answers_drops_frames_and_sends_the_newest(clock: Clock) -> None:
    user: Any = User(clock, answer_s=0.035)
    run_until(CameraLoop(LoadProfile(fps=100), user), clock, 1)
    # An answer takes three and a half frames: of the frames that come meanwhile, the last one is sent.
    assert len(user.due) + len(user.dropped) == pytest.approx(100, abs=3), "every frame has one of two fates"
    assert len(user.dropped) > len(user.due)
    late = [sent - due for sent, due in zip(user.sent_at, user.due, strict=True)]
    assert all(0 <= seconds <= 0.01 + 1e-9 for seconds in late), "at most a period after it was due"
    assert all(second - first == pytest.approx(0.035) for first, second in itertools.pairwise(user.sent_at[1:]))
    assert set(user.dropped) == {"the answer to an earlier frame had not come after 10 ms"}


class Spawned:
    """Stands for gevent's pool: what it starts takes no time of the loop."""

    def __init__(self, places: int = 10**9) -> None:
        self.due: list[float] = []
        self.places = places

    def wait_available(self, _timeout: float | None) -> int:
        return self.places - len(self.due)

    def join(self) -> None:
        """Wait for nothing."""

    def spawn(self, _request: Any, due: float) -> None:
        self.due.append(due)


def open_loop(profile: LoadProfile, clock: Clock, seed: int = 1) -> list[float]:
    user: Any = User(clock, answer_s=100.0)
    loop = OpenLoop(profile, user)
    spawned: Any = Spawned()
    loop.sending = spawned
    loop.random.seed(seed)
    run_until(loop, clock, 10)
    due: list[float] = spawned.due
    return due


def test_an_open_loop_sends_on_time_whatever_the_answers_do(clock: Clock) -> None:
    due = open_loop(LoadProfile(rate_per_s=5), clock)
    assert len(due) == pytest.approx(50, abs=1)
    assert all(second - first == pytest.approx(0.2) for first, second in itertools.pairwise(due))


def test_what_an_open_loop_cannot_send_is_not_forgotten(clock: Clock) -> None:
    """4,500 were due, 2,441 were in the run, and there was no word of the others."""
    user: Any = User(clock, answer_s=100.0)
    loop = OpenLoop(LoadProfile(rate_per_s=900), user)
    spawned: Any = Spawned(places=1000)
    loop.sending = spawned
    loop.begin(0.0, 5.0)
    while loop.due < 5 and len(spawned.due) < 1000:
        clock.now = max(clock.now, loop.due)
        loop.send()
    clock.now = 6.0
    loop.send()  # there is no place for it
    loop.end()
    assert len(spawned.due) == 1000
    assert user.unsent == 3500
    loop.end()
    assert user.unsent == 3500, "each once"


def test_a_user_s_open_loop_leaves_nothing_out_that_is_not_due_yet(clock: Clock) -> None:
    user: Any = User(clock, answer_s=0.0)
    loop = OpenLoop(LoadProfile(rate_per_s=10), user)
    spawned: Any = Spawned()
    loop.sending = spawned
    run_until(loop, clock, 1)
    clock.now = 1.5
    loop.end()
    assert (len(spawned.due), user.unsent) == (10, 0)


def test_what_locust_stops_amid_a_load_counts_unless_it_may_yet_have_been_sent(clock: Clock) -> None:
    user: Any = User(clock, answer_s=0.0)
    loop = OpenLoop(LoadProfile(rate_per_s=10), user)
    spawned: Any = Spawned(places=0)
    loop.sending = spawned
    loop.begin(0.0)
    clock.now = 5.0
    loop.send()
    loop.end()
    assert user.unsent == 40


def test_an_open_loop_in_steps(clock: Clock) -> None:
    due = open_loop(LoadProfile(rate_per_s=20, shape="step", duration_s=10), clock)
    counts = [sum(first <= at < first + 2 for at in due) for first in range(0, 10, 2)]
    assert counts == pytest.approx([8, 16, 24, 32, 40], abs=2)


def test_poisson_s_gaps_are_exponential(clock: Clock) -> None:
    due = open_loop(LoadProfile(rate_per_s=100, poisson=True), clock)
    gaps = [second - first for first, second in itertools.pairwise(due)]
    mean = sum(gaps) / len(gaps)
    assert mean == pytest.approx(0.01, rel=0.1)
    assert sum((gap - mean) ** 2 for gap in gaps) / len(gaps) == pytest.approx(mean**2, rel=0.25)


def test_cameras_are_not_in_step_and_with_a_seed_they_begin_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triptych_loadtest.loops.time.monotonic", lambda: 0.0)

    def phases(seed: int) -> list[float]:
        begun = []
        for number in range(8):
            user: Any = User(Clock(), 0.0, number=f"0-{number}")
            loop = CameraLoop(LoadProfile(fps=4, seed=seed), user)
            loop.begin(0.0)
            begun.append(loop.due)
        return begun

    assert phases(1) == phases(1) != phases(2)
    assert len(set(phases(1))) == 8
    assert all(0 <= phase < 0.25 for phase in phases(1))
    assert phases(0) != phases(0)
