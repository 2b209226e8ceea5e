"""A server that goes away, and a detector that waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

import grpc
import pytest

from support.fake_server import LOST, FakeServer, Fault
from triptych.client import DetectionClient
from triptych.errors import InvalidRequest, ServerUnavailable
from triptych.video.detecting import Answer, PatientDetector


def patient(client: DetectionClient, retry_s: float) -> tuple[Callable[[bytes, str], Answer], list[str]]:
    notes: list[str] = []
    detector = PatientDetector(client, retry_s, notes.append)
    return partial(detector, score_threshold=None, iou_threshold=None), notes


@pytest.fixture
def hasty(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[DetectionClient]:
    """A client that tries once."""
    monkeypatch.setattr("triptych.video.detecting.PAUSE_S", 0.01)
    with DetectionClient(server.address, retries=0) as client:
        yield client


def test_a_server_that_comes_back_is_waited_for(server: FakeServer, hasty: DetectionClient) -> None:
    detect, notes = patient(hasty, 30)
    server.script.extend([LOST, LOST, LOST])
    before_s = time.perf_counter()
    answer = detect(b"xy", "name-1")
    assert answer.detections is not None
    assert len(answer.detections) == 2
    assert server.requests[-1].id == "name-1"
    assert answer.sent_s - before_s >= 0.03  # the time without a server is not the request's
    assert "trying again for 30 s" in notes[0]
    assert "the server answers again" in notes[1]
    assert len(notes) == 2


def test_a_server_that_stays_away_is_given_up(server: FakeServer, hasty: DetectionClient) -> None:
    detect, notes = patient(hasty, 0.05)
    server.everywhere = LOST
    with pytest.raises(ServerUnavailable):
        detect(b"xy", "")
    assert len(notes) == 1
    assert len(server.requests) > 1


def test_what_no_wait_mends_is_raised_at_once(server: FakeServer, hasty: DetectionClient) -> None:
    detect, notes = patient(hasty, 30)
    server.everywhere = Fault(grpc.StatusCode.INVALID_ARGUMENT, "no")
    with pytest.raises(InvalidRequest):
        detect(b"xy", "")
    assert notes == []
    assert len(server.requests) == 1


def test_an_image_that_the_server_cannot_read_is_an_answer(hasty: DetectionClient) -> None:
    answer = patient(hasty, 0)[0](b"bad", "")
    assert answer.detections is None
    assert answer.error == "cannot be read: é"
