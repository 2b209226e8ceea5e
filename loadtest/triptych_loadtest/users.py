"""The users for Locust: each has a connection of its own, and sends when its loop says so.

One class of users has all loops, and the options choose: Locust picks its classes before the web page is filled in.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import secrets
import time
from collections.abc import Callable

import gevent
import grpc.experimental.gevent
from locust import User, task

grpc.experimental.gevent.init_gevent()  # before the first channel, else every user waits for every other

from triptych import DetectionClient, Detections  # noqa: E402
from triptych.client import DEFAULT_ADDRESS  # noqa: E402
from triptych.errors import ImageError, TriptychError  # noqa: E402
from triptych.wire.credentials import Credentials  # noqa: E402
from triptych_loadtest.load_test import LoadProfile, Phase  # noqa: E402
from triptych_loadtest.locust_options import credentials_of, payloads_of, profile_of  # noqa: E402
from triptych_loadtest.loops import CATCH_UP_S, LOOPS, REQUEST_TIMEOUT_S  # noqa: E402
from triptych_loadtest.payloads import Payloads  # noqa: E402


class DetectionUser(User):  # type: ignore[misc]  # Locust is not typed
    """A client with a connection of its own, as separate clients would have.

    Locust lets it send while it waits for its tasks. In a process of `triptych loadtest` it takes part in phases.
    """

    host = DEFAULT_ADDRESS
    numbers = itertools.count()

    def on_start(self) -> None:
        # Its own among all users of all processes that share the load.
        self.number = f"{getattr(self.environment.runner, 'worker_index', 0)}-{next(self.numbers)}"
        options = self.environment.parsed_options
        self.connect(self.host, profile_of(options), payloads_of(options), credentials_of(options))
        self.loop.begin(time.monotonic())

    def connect(self, address: str, profile: LoadProfile, payloads: Payloads, credentials: Credentials) -> None:
        """Prepare to send, and connect; the user has its number."""
        seed = f"images {profile.seed} {self.number}" if profile.seed else None
        self.payloads = payloads.draw(random.Random(seed))  # noqa: S311  # no secret
        self.request_ids = map(f"{secrets.token_hex(4)}-{{}}".format, itertools.count())
        self.client = DetectionClient(address, retries=0, timeout_s=REQUEST_TIMEOUT_S, credentials=credentials)
        self.loop = LOOPS[profile.loop](profile, self)
        with contextlib.suppress(TriptychError):  # the first request will say so
            self.client.spec()  # connects, and asks what only the first request would ask

    def on_stop(self) -> None:
        self.loop.end()
        self.client.close()

    @task  # type: ignore[untyped-decorator]
    def send_when_due(self) -> None:
        if self.loop.due <= time.monotonic():
            self.loop.send()

    def wait_time(self) -> float:
        return max(0.0, self.loop.due - time.monotonic())

    def take_part(self, phase: Phase, turn_s: Callable[[float], float]) -> None:
        """Send what is due in a phase, and wait for what is in flight.

        Args:
            phase: when it begins and ends.
            turn_s: says from when on the user may send, of a time since the phase began, in seconds.
        """
        self.loop.begin(phase.begins_s, phase.ends_s)
        while (due := self.loop.due) < phase.ends_s and time.monotonic() < phase.ends_s + CATCH_UP_S:
            if (turn := turn_s(due - phase.begins_s)) > due - phase.begins_s:
                self.loop.begin(phase.begins_s + turn, phase.ends_s)
            elif (wait_s := due - time.monotonic()) > 0:
                gevent.sleep(wait_s)
            else:
                self.loop.send()
        self.loop.end()

    def request(self, due: float) -> Exception | None:
        """Send one request, due at a time of `time.monotonic`; report what went wrong, and return it."""
        payload, request_id = next(self.payloads), next(self.request_ids)
        failure: Exception | None = None
        results: list[Detections] = []
        late_s = time.monotonic() - due
        try:
            if len(payload.images) == 1:
                results = [self.client.detect(payload.images[0], request_id=request_id)]
            else:
                results = self.client.detect_batch(payload.images, request_id=request_id)
                if errors := [result.error for result in results if result.error]:
                    failure = ImageError(errors[0])
        except Exception as error:  # Locust's contract: whatever went wrong is reported, and the user goes on
            failure = error
        latency_ms, truncated = (time.monotonic() - due) * 1000, any(result.truncated for result in results)
        self.report(payload.name, latency_ms, failure, request_id, late_ms=late_s * 1000, truncated=truncated)
        return failure

    def report(
        self,
        name: str,
        latency_ms: float | None,
        failure: Exception | None,
        request_id: str,
        *,
        late_ms: float = 0.0,
        truncated: bool = False,
    ) -> None:
        """Report a request to Locust, or one that was never sent, which has no latency."""
        self.environment.events.request.fire(
            request_type="grpc",
            name=name,
            response_time=latency_ms,
            response_length=0,
            exception=failure,
            context={"request_id": request_id, "late_ms": late_ms, "truncated": truncated},
        )
