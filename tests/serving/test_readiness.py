"""Whether a server is ready, with answers that the test chooses."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from triptych.contract import MODELS
from triptych.serving import readiness
from triptych.serving.readiness import ask_ready
from triptych.wire.statistics import Counters, Snapshot

NAMES = [model.name for model in MODELS]


class Failed(grpc.RpcError):  # type: ignore[misc]  # gRPC has no types
    def __init__(self, code: grpc.StatusCode, details: str = "") -> None:
        self.code, self.details = lambda: code, lambda: details


class Control:
    """Stands for the control interface of one server."""

    loaded = NAMES
    steps = (0,)
    failure: Failed | None = None

    def __init__(self, *_: object, **__: object) -> None:
        self.asked = 0

    def close(self) -> None:
        pass

    def statistics(self, timeout_s: float) -> Snapshot:
        count = self.steps[min(self.asked, len(self.steps) - 1)]
        self.asked += 1
        # The stages after the first do nothing.
        return {name: Counters(requests=count, executions=count * (name == "preprocess")) for name in self.loaded}

    def ask(self, request: object, timeout_s: float) -> Control:
        return self

    def result(self) -> None:
        if self.failure:
            raise self.failure


@pytest.fixture
def control(monkeypatch: pytest.MonkeyPatch) -> type[Control]:
    class Chosen(Control):
        pass

    monkeypatch.setattr(readiness, "ModelControl", Chosen)
    return Chosen


def say(control: type[Control], **attributes: Any) -> tuple[bool, str]:
    for name, value in attributes.items():
        setattr(control, name, value)
    answer = ask_ready("here:1", 0.3)
    return answer.is_ready, answer.line


def test_an_image_went_through(control: type[Control]) -> None:
    is_ready, line = say(control)
    assert is_ready
    assert line.startswith("ready: here:1 answered an image, ")


def test_a_model_is_not_there(control: type[Control]) -> None:
    expected = (False, "not ready: detection, detector of here:1 cannot be asked")
    assert say(control, loaded=["preprocess", "postprocess"]) == expected


def test_a_stage_hangs(control: type[Control]) -> None:
    late = Failed(grpc.StatusCode.DEADLINE_EXCEEDED)
    expected = (False, "not ready: detector of here:1 did nothing with an image within 0.3 s")
    assert say(control, failure=late, steps=(1, 2)) == expected


def test_full_queues_are_ready_if_they_move(control: type[Control]) -> None:
    full = Failed(grpc.StatusCode.UNAVAILABLE, "in ensemble 'detection', Exceeds maximum queue size")
    assert say(control, failure=full, steps=(1, 1, 2))[0]
    is_ready, line = say(control, failure=full, steps=(1,))
    assert not is_ready
    assert line.startswith("not ready: the server at here:1 refuses more work")


def test_nobody_is_there(nobody: str) -> None:
    answer = ask_ready(nobody, 1)
    assert not answer.is_ready
    assert answer.line.startswith(f"not ready: no server answers at {nobody}")
