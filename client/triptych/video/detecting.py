"""Detection that outlives a server's absence: a request that nobody answers is sent again for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from triptych.client import DetectionClient
from triptych.detections import Detections
from triptych.errors import AccessDenied, ImageError, InvalidRequest, RequestCancelled, RequestError

PAUSE_S = 0.5
"""The pause between two tries to reach a server that is gone."""

_FINAL = (InvalidRequest, AccessDenied, RequestCancelled)
"""Errors that waiting does not cure."""


@dataclass(frozen=True)
class Answer:
    """What came back for one frame.

    Attributes:
        detections: None where the image could not be read.
        error: why not, else empty.
        sent_s: when the request that was answered went out, by `time.perf_counter`.
        answered_s: when its answer was there.
    """

    detections: Detections | None
    error: str
    sent_s: float
    answered_s: float


@dataclass
class PatientDetector:
    """Sends frames to a server, from several threads; while it is gone, all of them wait for it together.

    Attributes:
        client: the server; it tries each request once.
        retry_s: how long to wait for a server that is gone, in seconds.
        say: hears once that the server is gone, and once that it is back.
        stop: once it is set, nothing is tried again.
    """

    client: DetectionClient
    retry_s: float
    say: Callable[[str], None]
    stop: threading.Event = field(default_factory=threading.Event)
    _gone_s: float | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(
        self, encoded: bytes, request_id: str, *, score_threshold: float | None, iou_threshold: float | None
    ) -> Answer:
        """Detect objects in one encoded image, as `DetectionClient.detect` does.

        Raises:
            RequestError: the server refuses, or did not come back in time.
        """
        while True:
            sent_s = time.perf_counter()
            try:
                detections = self.client.detect(
                    encoded,
                    score_threshold=score_threshold,
                    iou_threshold=iou_threshold,
                    request_id=request_id,
                )
            except ImageError as error:
                self._answered()
                return Answer(None, str(error), sent_s, time.perf_counter())
            except _FINAL:
                raise
            except RequestError as error:
                if not self._may_wait(error) or self.stop.wait(PAUSE_S):
                    raise
            else:
                answered_s = time.perf_counter()
                self._answered()
                return Answer(detections, "", sent_s, answered_s)

    def _may_wait(self, error: RequestError) -> bool:
        """Return whether there is still time for the server to come back."""
        with self._lock:
            if self._gone_s is None:
                self._gone_s = time.perf_counter()
                if self.retry_s:
                    self.say(f"{error}; trying again for {self.retry_s:g} s")
            return time.perf_counter() - self._gone_s < self.retry_s

    def _answered(self) -> None:
        with self._lock:
            gone_s, self._gone_s = self._gone_s, None
            if gone_s is not None:
                self.say(f"the server answers again, after {time.perf_counter() - gone_s:.1f} s")
