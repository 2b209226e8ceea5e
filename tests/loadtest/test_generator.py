"""A load test's processes, against a server that is none: what they send, and how they end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support.fake_server import FakeServer
from triptych.errors import MeasurementError
from triptych_loadtest import generator
from triptych_loadtest.generator import Generator
from triptych_loadtest.load_test import LoadTest
from triptych_loadtest.payloads import payloads
from triptych_loadtest.recorder import Recorder

IMAGES = [b"1", b"22", b"333"]


def nothing() -> None:
    """Do nothing while somebody waits."""


def drive(test: LoadTest, seconds: float, tick: Callable[[Generator], None] = lambda _running: None) -> Recorder:
    """Run one phase of a load test."""
    with Generator(test, payloads(IMAGES, test.batch)) as running:
        phase = running.begin(seconds)
        recorder = Recorder(test, phase)
        running.finish(phase, recorder.take, lambda: tick(running))
    return recorder


def test_all_that_was_due_is_answered_failed_or_unsent(server: FakeServer) -> None:
    """8 at a time and 0.25 s each: of 500 a second the server takes 32."""
    server.delay_s = 0.25
    recorder = drive(LoadTest(Path("DIR"), address=server.address, rate_per_s=500, processes=2), 3)
    failed = sum(failure.count for failure in recorder.failures.values())
    assert recorder.all_latencies.count + failed + recorder.unsent == pytest.approx(1500, abs=2)
    assert recorder.all_latencies.count > 0


@pytest.mark.parametrize("processes", [1, 2])
def test_a_short_phase_has_requests_of_every_process(server: FakeServer, processes: int) -> None:
    test = LoadTest(Path("DIR"), address=server.address, users=4, processes=processes)
    recorder = drive(test, 0.5)
    assert recorder.all_latencies.count > 0
    assert len(recorder.cpu_s) == processes


def test_phases_follow_at_once_and_the_users_stay_connected(server: FakeServer) -> None:
    test = LoadTest(Path("DIR"), address=server.address, users=3, processes=2, seed=5)
    with Generator(test, payloads(IMAGES)) as running:
        asked = len(server.config_requests)
        counts = []
        began_s = time.monotonic()
        for _ in range(3):
            phase = running.begin(0.3)
            recorder = Recorder(test, phase)
            running.finish(phase, recorder.take, nothing)
            counts.append(recorder.all_latencies.count)
        took_s = time.monotonic() - began_s
    assert min(counts) > 0
    assert len(server.config_requests) == asked > 0, "nobody connects within the clock"
    # Before, the processes slept for 11 s between two phases.
    assert took_s < 8


def test_the_same_seed_sends_the_same_images(server: FakeServer) -> None:
    sent = []
    for seed in (7, 7, 8):
        server.requests.clear()
        drive(LoadTest(Path("DIR"), address=server.address, users=1, seed=seed), 0.3)
        sent.append([batch[0] for batch in server.batches])
    first, again, other = (images[: min(map(len, sent))] for images in sent)
    assert first == again
    assert len(first) > 6
    assert first != other


_SET_CLOCK = """
import os
import time

_time = time.time
time.time = lambda: _time() + (30.0 if os.path.exists({flag!r}) else 0.0)
"""


def test_a_clock_that_is_set_amid_a_phase_changes_no_figure(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Reported before as 226 requests in 38.0 s: 5.9/s, of 8 s of 28/s."""
    flag = tmp_path / "set"
    (tmp_path / "sitecustomize.py").write_text(_SET_CLOCK.format(flag=str(flag)))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    server.delay_s = 0.02
    test = LoadTest(Path("DIR"), address=server.address, users=2, intervals=3)
    with Generator(test, payloads(IMAGES)) as running:
        phase = running.begin(1.5)
        recorder = Recorder(test, phase)

        def set_clock() -> None:
            if time.monotonic() > phase.begins_s + 0.7:
                flag.touch()

        running.finish(phase, recorder.take, set_clock)
    assert flag.exists()
    assert 1.0 < recorder.last_s - phase.begins_s < 15
    parts = recorder.timeline.intervals(recorder.joined.requests)
    assert min(part.requests for part in parts) > 0, "not all in the last part"
    assert recorder.all_latencies.percentile_ms(100) < 15_000


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_is_killed_is_named_at_once(server: FakeServer, number: signal.Signals) -> None:
    test = LoadTest(Path("DIR"), address=server.address, users=2, processes=2)
    killed_s = 0.0

    def kill(running: Generator) -> None:
        nonlocal killed_s
        if not killed_s:
            os.kill(running._senders[1].process.pid, number)
            killed_s = time.monotonic()

    with pytest.raises(MeasurementError, match=f"process 2 of 2 was ended by {number.name}; measure again"):
        drive(test, 30, kill)
    assert time.monotonic() - killed_s < 15


def test_a_process_that_cannot_start_says_why(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(MeasurementError, match="the load test's process ended with exit code 1; measure again"):
        drive(LoadTest(Path("DIR"), address=server.address), 1)


def test_a_process_that_does_not_end_is_not_waited_for(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generator, "END_TIMEOUT_S", 0.5)
    monkeypatch.setattr(generator, "EXIT_TIMEOUT_S", 0.2)

    def stop(running: Generator) -> None:
        os.kill(running._senders[0].process.pid, signal.SIGSTOP)

    with pytest.raises(MeasurementError, match="did not come to the end of its requests within"):
        drive(LoadTest(Path("DIR"), address=server.address, users=1), 0.3, stop)


def test_whoever_starts_the_processes_takes_them_along(server: FakeServer) -> None:
    test = LoadTest(Path("DIR"), address=server.address, users=2, processes=2)
    with Generator(test, payloads(IMAGES)) as running:
        processes = [sender.process for sender in running._senders]
        running.begin(60)
        for sender in running._senders:
            sender.pipe.close()  # as the kernel does for whoever is killed
        assert [process.wait(20) for process in processes] == [1, 1]
