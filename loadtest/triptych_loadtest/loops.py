"""When a user sends.

There are three loops. In the closed one a user waits for its answer before it sends again. In the open one (`--rate`)
it sends at its rate whatever the answers do. Cameras (`--fps`) send a frame when it is due, and drop the frames that
are due while they wait for an answer. In the last two a request's latency counts from when it was due, and what was
due and could not be sent is reported.
"""

from __future__ import annotations

import math
import random
import time
from typing import TYPE_CHECKING

import gevent
from gevent.pool import Pool

from triptych.errors import ServerUnavailable, TriptychError
from triptych_loadtest.load_test import LoadProfile
from triptych_loadtest.shapes import due_after

if TYPE_CHECKING:
    from triptych_loadtest.users import DetectionUser

REQUEST_TIMEOUT_S = 10.0
"""How long a request may take."""

PAUSE_S = 0.1
"""How long a user of the closed loop waits where no server answers; it would ask thousands of times a second."""

MOST_IN_FLIGHT = 1000
"""Requests of one open-loop user that may be under way; further ones wait, and that counts as theirs."""

CATCH_UP_S = 1.0
"""How long after the end of a load what was due before may still be sent."""


class FrameDropped(TriptychError):
    """A camera's frame that was not sent, because the answer to an earlier one had not come."""


class RequestUnsent(TriptychError):
    """A request that was due and was not sent."""


class Loop:
    """When a user sends.

    Attributes:
        due: when the next request is due, on the clock of `time.monotonic`.
        ends_s: when the load ends, on the same clock: nothing is due from then on.
    """

    def __init__(self, profile: LoadProfile, user: DetectionUser) -> None:
        """Make the loop of this user."""
        self.profile, self.user, self.due, self.ends_s = profile, user, 0.0, math.inf
        self.random = random.Random(f"{profile.seed} {user.number}" if profile.seed else None)  # noqa: S311  # no secret

    def begin(self, at_s: float, ends_s: float = math.inf) -> None:
        """Begin then, and end at `ends_s`; the user is connected."""
        self.due, self.ends_s = at_s, ends_s

    def send(self) -> None:
        """Send what is due."""
        raise NotImplementedError

    def advance(self) -> None:
        """Go on to the request that is due next."""
        raise NotImplementedError

    def end(self) -> None:
        """Wait for what is in flight, and report what was due, and was not sent within `CATCH_UP_S`."""
        while self.due < min(time.monotonic() - CATCH_UP_S, self.ends_s):
            self.user.report("unsent", None, RequestUnsent("it was due, and could not be sent in time"), "")
            self.advance()


class ClosedLoop(Loop):
    """Sends, waits for the detections, sends the next."""

    def send(self) -> None:
        if isinstance(self.user.request(time.monotonic()), ServerUnavailable):
            gevent.sleep(PAUSE_S)
        self.advance()

    def advance(self) -> None:
        self.due = time.monotonic()

    def end(self) -> None:
        """Do nothing: what was due was sent."""


class OpenLoop(Loop):
    """Sends at a rate, each request when it is due, however long the others take."""

    def __init__(self, profile: LoadProfile, user: DetectionUser) -> None:
        super().__init__(profile, user)
        self.sending = Pool(MOST_IN_FLIGHT)

    def begin(self, at_s: float, ends_s: float = math.inf) -> None:
        super().begin(at_s, ends_s)
        self.began = at_s
        self._wait_for(self.random.random())  # users take turns

    def send(self) -> None:
        left_s = self.ends_s + CATCH_UP_S - time.monotonic()
        if self.sending.wait_available(None if left_s == math.inf else max(0.0, left_s)):
            self.sending.spawn(self.user.request, self.due)
            self.advance()

    def advance(self) -> None:
        self._wait_for(1)

    def end(self) -> None:
        super().end()
        self.sending.join()

    def _wait_for(self, requests: float) -> None:
        requests = self.random.expovariate(1) if self.profile.poisson else requests
        self.due = self.began + due_after(self.due - self.began, requests, self.profile.rate_at)


class CameraLoop(Loop):
    """Sends a frame when it is due; of the frames that come while it waits for an answer, only the newest."""

    def begin(self, at_s: float, ends_s: float = math.inf) -> None:
        super().begin(at_s, ends_s)
        self.period_s = 1 / self.profile.fps
        self.due += self.random.uniform(0, self.period_s)  # cameras are not in step

    def send(self) -> None:
        due = self.due
        self.advance()
        self.user.request(due)
        came = int((min(time.monotonic(), self.ends_s) - due) / self.period_s)
        for _ in range(came - 1):
            dropped = FrameDropped(f"the answer to an earlier frame had not come after {self.period_s * 1e3:.0f} ms")
            self.user.report("frame", None, dropped, "")
            self.advance()

    def advance(self) -> None:
        self.due += self.period_s


LOOPS = {"closed": ClosedLoop, "constant": OpenLoop, "poisson": OpenLoop, "camera": CameraLoop}
"""By `LoadProfile.loop`."""
