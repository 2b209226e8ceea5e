"""The users for Locust: each has a connection of its own, and sends when its loop says so.

One class of users has all loops, and the options choose: Locust picks its classes before the web page is filled in.
"""

from __future__ import annotations

import contextlib
import itertools
import secrets
import time
from collections.abc import Iterator

import grpc.experimental.gevent
from locust import User, task

grpc.experimental.gevent.init_gevent()  # before the first channel, else every user waits for every other

from triptych import DetectionClient, Detections  # noqa: E402
from triptych.client import DEFAULT_ADDRESS  # noqa: E402
from triptych.errors import ImageError, TriptychError  # noqa: E402
from triptych_loadtest.locust_options import credentials_of, payloads_of, profile_of  # noqa: E402
from triptych_loadtest.loops import LOOPS, REQUEST_TIMEOUT_S  # noqa: E402
from triptych_loadtest.payloads import Payload  # noqa: E402


class DetectionUser(User):  # type: ignore[misc]  # Locust is not typed
    """A client with a connection of its own, as separate clients would have."""

    host = DEFAULT_ADDRESS
    numbers = itertools.count()

    def on_start(self) -> None:
        # Its own among all users of all processes that share the load.
        self.number = f"{getattr(self.environment.runner, 'worker_index', 0)}-{next(self.numbers)}"
        # `triptych loadtest` has no options of Locust, and sets the profile and the payloads itself.
        options = self.environment.parsed_options
        profile = profile_of(options) if options else self.environment.profile
        self.payloads: Iterator[Payload] = itertools.cycle(
            payloads_of(options) if options else self.environment.payloads
        )
        self.request_ids = map(f"{secrets.token_hex(4)}-{{}}".format, itertools.count())
        credentials = credentials_of(options) if options else self.environment.credentials
        self.client = DetectionClient(self.host, retries=0, timeout_s=REQUEST_TIMEOUT_S, credentials=credentials)
        self.loop = LOOPS[profile.loop](profile, self)
        with contextlib.suppress(TriptychError):  # the first request will say so
            self.client.spec()  # connects, and asks what only the first request would ask
        self.loop.begin()

    def on_stop(self) -> None:
        self.loop.end()
        self.client.close()

    @task  # type: ignore[untyped-decorator]
    def send_when_due(self) -> None:
        if self.loop.due <= time.perf_counter():
            self.loop.send()

    def wait_time(self) -> float:
        return max(0.0, self.loop.due - time.perf_counter())

    def request(self, due: float) -> Exception | None:
        """Send one request, due at a time of `time.perf_counter`; report what went wrong, and return it."""
        payload, request_id = next(self.payloads), next(self.request_ids)
        failure: Exception | None = None
        results: list[Detections] = []
        try:
            if len(payload.images) == 1:
                results = [self.client.detect(payload.images[0], request_id=request_id)]
            else:
                results = self.client.detect_batch(payload.images, request_id=request_id)
                if errors := [result.error for result in results if result.error]:
                    failure = ImageError(errors[0])
        except Exception as error:  # Locust's contract: whatever went wrong is reported, and the user goes on
            failure = error
        truncated = any(result.truncated for result in results)
        self.report(payload.name, (time.perf_counter() - due) * 1000, failure, request_id, truncated=truncated)
        return failure

    def report(
        self,
        name: str,
        latency_ms: float | None,
        failure: Exception | None,
        request_id: str,
        *,
        truncated: bool = False,
    ) -> None:
        """Report a request to Locust, or one that was never sent, which has no latency."""
        self.environment.events.request.fire(
            request_type="grpc",
            name=name,
            response_time=latency_ms,
            response_length=0,
            exception=failure,
            context={"request_id": request_id, "truncated": truncated},
        )
