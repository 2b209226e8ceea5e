"""Users who send an image all the while, and what became of every request."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType

import numpy as np

from support.images import JPEG
from triptych import DetectionClient, Detections
from triptych.errors import DeadlineExceeded, ServerOverloaded, TriptychError

ANSWERED = "answered"
WRONG = "wrong answer"
LOST = "lost"
PAUSE_S = 0.05
STEADY_S = 2.0
"""The service is back when for so long no request has failed."""


@dataclass(frozen=True)
class Call:
    """One request: when it was sent and ended, in seconds of `time.monotonic`, and `answered` or an error's class."""

    sent_s: float
    ended_s: float
    outcome: str


@dataclass
class Tally:
    """What became of requests.

    Attributes:
        outcomes: how many, by outcome.
        back_s: from the fault until the first answer after the last failure; 0 if nothing failed.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    back_s: float = 0.0

    @classmethod
    def of(cls, calls: Sequence[Call], fault_s: float) -> Tally:
        """Count calls around a fault."""
        failed = [call.sent_s for call in calls if call.outcome != ANSWERED and call.ended_s >= fault_s]
        back = [call.ended_s for call in calls if call.outcome == ANSWERED and call.sent_s > max(failed, default=0)]
        back_s = (min(back, default=float("inf")) - fault_s) if failed else 0.0
        return cls(Counter(call.outcome for call in calls), back_s)

    @property
    def sent(self) -> int:
        return self.outcomes.total()

    @property
    def refused(self) -> int:
        return self.outcomes[ServerOverloaded.__name__]

    @property
    def late(self) -> int:
        return self.outcomes[DeadlineExceeded.__name__]

    @property
    def failed(self) -> int:
        """How many failed with another reason."""
        known = self.outcomes[ANSWERED] + self.refused + self.late + self.outcomes[LOST] + self.outcomes[WRONG]
        return self.sent - known


def is_same(answer: Detections, good: Detections) -> bool:
    """Return whether two answers have the same boxes."""
    return not answer.error and np.array_equal(answer.boxes_xyxy, good.boxes_xyxy)


def outcome_of(call: Callable[[], Detections], good: Detections) -> str:
    """Make a call and name how it ended."""
    try:
        return ANSWERED if is_same(call(), good) else WRONG
    except TriptychError as error:
        return type(error).__name__


class Users:
    """Threads that each send the image, wait, and send it again; every request counts, and none is sent twice."""

    def __init__(self, address: str, good: Detections, count: int = 3, timeout_s: float = 5.0) -> None:
        self._address, self._good, self._timeout_s = address, good, timeout_s
        self._calls: list[Call] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._user, daemon=True) for _ in range(count)]

    def __enter__(self) -> Users:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(self._timeout_s + 10)
            if thread.is_alive():  # its request has neither an answer nor an error
                self._calls.append(Call(time.monotonic(), time.monotonic(), LOST))

    def _user(self) -> None:
        with DetectionClient(self._address, retries=0, timeout_s=self._timeout_s) as client:
            while not self._stop.is_set():
                sent_s = time.monotonic()
                outcome = outcome_of(lambda: client.detect(JPEG), self._good)
                self._calls.append(Call(sent_s, time.monotonic(), outcome))
                time.sleep(PAUSE_S)

    def tally(self, fault_s: float) -> Tally:
        """Return what became of the requests so far."""
        return Tally.of(list(self._calls), fault_s)

    def settle(self, fault_s: float, within_s: float, done: Callable[[], bool] = lambda: True) -> bool:
        """Wait until `done`, and no request has failed for a while; return False if that takes too long."""
        while time.monotonic() - fault_s < within_s:
            since_s = time.monotonic() - STEADY_S
            recent = [call for call in list(self._calls) if call.ended_s >= since_s]
            steady = recent and all(call.outcome == ANSWERED for call in recent) and since_s >= fault_s
            if steady and done():
                return True
            time.sleep(0.1)
        return False
