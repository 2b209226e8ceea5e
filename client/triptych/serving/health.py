"""Whether a server answers, and whether its stages do.

The server itself is asked every second. The stages are asked only when nobody else has had an answer for a while:
then a tiny image goes through `detection`. So a load test never counts an image of ours among its own. A stage that
hangs is noticed all the same, because then nobody has an answer. The first stage that counts nothing is to blame.
"""

from __future__ import annotations

import time

import grpc
import numpy as np
from tritonclient.grpc import service_pb2

from triptych.contract import DETECTION, MAX_BATCH, POSTPROCESS, STAGES
from triptych.errors import DeadlineExceeded, RequestError, ServerCrashed, ServerOverloaded
from triptych.vision.inputs import encode_image
from triptych.wire.model_control import ModelControl
from triptych.wire.protocol import build_request
from triptych.wire.statistics import Counters, Snapshot
from triptych.wire.status import Target, explain_rpc_error

ASK_EVERY_S = 1.0

ANSWER_WITHIN_S = 4.0
"""How long the server may take to say that it lives. It does so in milliseconds, unless the machine is overloaded."""

SURE_FOR_S = 2.5 * ASK_EVERY_S

SILENT_FOR_S = 8.0
"""A server that has not answered for so long, asked twice at least, is taken for hung."""

IDLE_FOR_S = 10.0
"""When no request was answered for so long, an image is sent."""

CANARY_WITHIN_S = 10.0
"""How long that image may take, or as long as three full batches if that is longer."""

CANARY_ID = "triptych-serve"
"""What those requests are called in traces and logs."""


class Liveness:
    """Asks a server whether it lives, and never waits for the answer."""

    def __init__(self, control: ModelControl) -> None:
        self._control = control
        self._pending: grpc.Future | None = None
        self._answered = self._asked = time.monotonic()
        self._misses = 0

    @property
    def is_sure(self) -> bool:
        """Whether it answered a moment ago, so that it may be asked what has to be waited for."""
        return time.monotonic() - self._answered < SURE_FOR_S

    def check(self) -> None:
        """Take the answer if there is one, and ask again if it is time.

        Raises:
            ServerCrashed: it has been silent for too long.
        """
        now = time.monotonic()
        if self._pending is not None and self._pending.done():
            if self._pending.exception() is None:
                self._answered, self._misses = now, 0
            else:
                self._misses += 1
            self._pending = None
        silent_s = now - self._answered
        # This process may have been stopped meanwhile: one late answer is not enough.
        if self._misses >= 2 and silent_s >= SILENT_FOR_S:
            raise ServerCrashed(f"the server runs, but has not answered for {silent_s:.0f} s")
        if self._pending is None and now - self._asked >= ASK_EVERY_S:
            self._asked = now
            self._pending = self._control.ask_live(ANSWER_WITHIN_S)


class Canary:
    """Sends an image through the stages when nobody else does, and says which stage does not answer."""

    def __init__(self, control: ModelControl) -> None:
        self._control = control
        self._request = canary_request(CANARY_ID)
        self._pending: grpc.Future | None = None
        self._sent = self._looked = 0.0
        self._before: Snapshot = {}
        self._since: float | None = None  # since then an image is under way, or others are in its way
        self._within_s = CANARY_WITHIN_S
        self._answers = 0
        self._moved = -IDLE_FOR_S  # so that the first image goes at once, and says how fast the stages are

    @property
    def within_s(self) -> float:
        """How long the image may take, in seconds."""
        return self._within_s

    def check(self) -> str | None:
        """Return the stage that hangs, if the image shows one now.

        Raises:
            grpc.RpcError: the server does not give its counters.
        """
        now = time.monotonic()
        if self._pending is not None:
            if not self._pending.done():
                return None
            self._take(self._pending, now)
        elif now - self._looked < ASK_EVERY_S:
            return None
        self._looked = now
        counters = self._control.statistics()
        if (answers := counters.get(POSTPROCESS.name, Counters()).requests) != self._answers:
            self._answers, self._moved, self._since = answers, now, None
        elif self._since is not None and now - self._since >= self._within_s:
            self._moved, self._since = now, None
            return first_idle(self._before, counters)
        elif now - self._moved >= IDLE_FOR_S:
            if self._since is None:
                self._before, self._since = counters, now
            self._sent, left_s = now, self._since + self._within_s - now
            self._pending = self._control.ask(self._request, left_s)
        return None

    def reset(self) -> None:
        """Forget the image that is under way, because a model was reloaded."""
        if self._pending is not None:
            self._pending.cancel()
        self._pending, self._since, self._moved = None, None, time.monotonic()

    def _take(self, pending: grpc.Future, now: float) -> None:
        self._pending = None
        error = pending.exception()
        if error is None:
            self._within_s = max(CANARY_WITHIN_S, 3 * MAX_BATCH * (now - self._sent))
        elif isinstance(_reason(error), (DeadlineExceeded, ServerOverloaded)):
            return  # a stage hangs, or its queue is full of those who wait for it
        # Anything else is an answer too. A process that died is noticed elsewhere.
        self._moved, self._since = now, None


def canary_request(request_id: str) -> service_pb2.ModelInferRequest:
    """Return a request for detection in a tiny image."""
    image = encode_image(np.zeros((16, 16, 3), np.uint8))
    return build_request(DETECTION.name, [image.data], request_id=request_id)


def first_idle(before: Snapshot, after: Snapshot) -> str | None:
    """Return the first stage that did nothing between two moments; None if all did something."""
    return next((stage.name for stage in STAGES if not _has_run(stage.name, before, after)), None)


def _reason(error: grpc.RpcError) -> RequestError:
    return explain_rpc_error(error, Target("", DETECTION.name, CANARY_WITHIN_S)).error


def _has_run(model: str, before: Snapshot, after: Snapshot) -> bool:
    """Return whether a stage has worked: requests that it refused do not count."""
    return before.get(model, Counters()).executions != after.get(model, Counters()).executions
