"""Users for Locust.

There are three loops. In the closed one a user waits for its answer before it sends again; in the open one (`--rate`)
it sends at its rate whatever the answers do; and cameras (`--fps`) send a frame when it is due, and lose those
that are due while an answer is awaited. In the last two a request's latency counts from when it was due.

One class of users has them all, and the options choose: Locust picks its classes before the web page is filled in.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import random
import secrets
import time
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gevent
import grpc.experimental.gevent
from gevent.pool import Pool
from locust import User, task

grpc.experimental.gevent.init_gevent()  # before the first channel, else every user waits for every other

from triptych import DetectionClient  # noqa: E402
from triptych.errors import ContractError, ImageError, ServerUnavailable, TriptychError  # noqa: E402
from triptych_loadtest.payloads import Payload, payloads, read_images, split_sizes  # noqa: E402
from triptych_loadtest.shapes import SHAPES, due_after, share  # noqa: E402

REQUEST_TIMEOUT_S = 10.0
"""How long a request may take."""

PAUSE_S = 0.1
"""How long a user of the closed loop waits where no server answers; it would ask thousands of times a second."""

MOST_IN_FLIGHT = 1000
"""Requests of one open-loop user that may be under way; further ones wait, and that counts as theirs."""


class FrameDropped(TriptychError):
    """A camera's frame that was not sent, because the answer to an earlier one had not come."""


@dataclass(frozen=True)
class Load:
    """What each user does.

    Attributes:
        rate: open loop: requests a second of each user; 0 for none.
        poisson: open loop: random gaps, exponentially distributed.
        fps: cameras: frames a second of each; 0 for none.
        shape: how an open loop's rate changes over `duration_s`, one of `SHAPES`. Other loops change their users.
        duration_s: of the whole load; 0 if it has no end.
    """

    rate: float = 0.0
    poisson: bool = False
    fps: float = 0.0
    shape: str = "constant"
    duration_s: float = 0.0

    def __post_init__(self) -> None:
        if min(self.rate, self.fps) < 0 or (self.rate and self.fps):
            raise ContractError(
                f"the rate (now {self.rate:g}) and the fps (now {self.fps:g}) must be at least 0, and one of them 0: "
                "they are two loops"
            )
        if self.poisson and not self.rate:
            raise ContractError("poisson needs a rate: how many requests a second come at random")
        if self.shape != "constant" and not self.duration_s:
            raise ContractError(f"the shape {self.shape} needs a run time, over which the load takes it")

    @classmethod
    def of(cls, options: Namespace) -> Load:
        """What Locust's options ask for."""
        # A worker is told every option of its master but Locust's own, and the run time is one of those.
        duration_s = getattr(options, "load_seconds", 0) or options.run_time or 0
        return cls(options.rate, options.poisson, options.fps, options.shape, float(duration_s))

    def loop(self, user: DetectionUser) -> Loop:
        """What carries it out."""
        return OpenLoop(self, user) if self.rate else CameraLoop(self, user) if self.fps else ClosedLoop(self, user)

    def rate_at(self, elapsed_s: float) -> float:
        """Requests a second of an open loop's user, so long after it began."""
        return self.rate * share(self.shape, elapsed_s / self.duration_s if self.duration_s else 0.0)


class DetectionUser(User):  # type: ignore[misc]  # Locust is not typed
    """A client with a connection of its own, as separate clients would have."""

    host = "127.0.0.1:8001"

    def on_start(self) -> None:
        # `python loadtest` has no options of Locust, and sets the load and the payloads itself.
        options = self.environment.parsed_options
        load = Load.of(options) if options else self.environment.load
        self.payloads: Iterator[Payload] = itertools.cycle(
            payloads_of(options) if options else self.environment.payloads
        )
        self.request_ids = map(f"{secrets.token_hex(4)}-{{}}".format, itertools.count())
        self.client = DetectionClient(self.host, retries=0, timeout_s=REQUEST_TIMEOUT_S)
        self.loop = load.loop(self)
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
        """One request, due at a time of `time.perf_counter`; what went wrong is reported and returned."""
        payload, request_id = next(self.payloads), next(self.request_ids)
        failure: Exception | None = None
        try:
            if len(payload.images) == 1:
                self.client.detect(payload.images[0], request_id=request_id)
            else:
                results = self.client.detect_batch(payload.images, request_id=request_id)
                if errors := [result.error for result in results if result.error]:
                    failure = ImageError(errors[0])
        except Exception as error:  # Locust's contract: whatever went wrong is reported, and the user goes on
            failure = error
        self.report(payload.name, (time.perf_counter() - due) * 1000, failure, request_id)
        return failure

    def report(self, name: str, latency_ms: float | None, failure: Exception | None, request_id: str) -> None:
        """Tell Locust of a request, or of one that was never sent: it has no latency."""
        self.environment.events.request.fire(
            request_type="grpc",
            name=name,
            response_time=latency_ms,
            response_length=0,
            exception=failure,
            context={"request_id": request_id},
        )


class Loop:
    """When a user sends.

    Attributes:
        due: when the next request is due, on the clock of `time.perf_counter`.
    """

    def __init__(self, load: Load, user: DetectionUser) -> None:
        """A loop of this user."""
        self.load, self.user, self.due = load, user, 0.0

    def begin(self) -> None:
        """The user is connected."""

    def send(self) -> None:
        """Send what is due."""
        raise NotImplementedError

    def end(self) -> None:
        """No more is sent."""


class ClosedLoop(Loop):
    """Sends, waits for the detections, sends the next."""

    def send(self) -> None:
        if isinstance(self.user.request(time.perf_counter()), ServerUnavailable):
            gevent.sleep(PAUSE_S)


class OpenLoop(Loop):
    """Sends at a rate, each request when it is due, however long the others take."""

    def __init__(self, load: Load, user: DetectionUser) -> None:
        super().__init__(load, user)
        self.sending = Pool(MOST_IN_FLIGHT)
        self.random = random.Random()  # noqa: S311  # no secret

    def begin(self) -> None:
        self.began = self.due = time.perf_counter()
        self._wait_for(self.random.random())  # users take turns

    def send(self) -> None:
        self.sending.spawn(self.user.request, self.due)
        self._wait_for(1)

    def end(self) -> None:
        self.sending.join(REQUEST_TIMEOUT_S)

    def _wait_for(self, requests: float) -> None:
        requests = self.random.expovariate(1) if self.load.poisson else requests
        self.due = self.began + due_after(self.due - self.began, requests, self.load.rate_at)


class CameraLoop(Loop):
    """Sends a frame each time that one is due; of those that come while an answer is awaited, the newest alone."""

    def begin(self) -> None:
        self.period_s = 1 / self.load.fps
        self.due = time.perf_counter() + random.uniform(0, self.period_s)  # noqa: S311  # cameras are not in step

    def send(self) -> None:
        self.user.request(self.due)
        came = int((time.perf_counter() - self.due) / self.period_s)
        for _ in range(came - 1):
            dropped = FrameDropped(f"the answer to an earlier frame had not come after {self.period_s * 1e3:.0f} ms")
            self.user.report("frame", None, dropped, "")
        self.due += max(1, came) * self.period_s


def add_options(parser: Any) -> None:
    """Options that both `locust -f` and `python loadtest` have."""
    add = parser.add_argument
    add("--images", required=True, metavar="DIR", help="images to send, in turn")
    add("--batch", type=int, default=1, metavar="N", help="images in a request (1)")
    add("--sizes", nargs="+", default=[], metavar="WxH", help="send each image scaled to each of these sizes, in turn")
    add("--poisson", action="store_true", help="with --rate: random gaps, exponentially distributed")
    add("--fps", type=float, default=0, metavar="N", help="users are cameras that send N frames a second each")
    of_what = "how the load changes: of users, or of the rate (constant)"
    add("--shape", choices=list(SHAPES), default="constant", help=of_what)


def payloads_of(options: Namespace) -> list[Payload]:
    """What Locust's options have the users send."""
    return _read_payloads(options.images, options.batch, tuple(split_sizes(options.sizes)))


@functools.lru_cache(maxsize=1)
def _read_payloads(images: str, batch: int, sizes: tuple[str, ...]) -> list[Payload]:
    """Once for all users."""
    return payloads(read_images(Path(images)), batch, sizes)
