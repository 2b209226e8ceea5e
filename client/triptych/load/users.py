"""Users for Locust.

Three kinds: a closed loop, where each user waits for its answer before it sends again; an open one (`--rate`), where
each user sends at its rate whatever the answers do; and cameras (`--fps`), which send a frame when it is due, and lose
those that are due while an answer is awaited. In the last two a request's latency counts from when it was due.
"""

from __future__ import annotations

import contextlib
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
from locust import LoadTestShape, User, constant, events, task
from locust.runners import WorkerRunner

grpc.experimental.gevent.init_gevent()  # before the first channel, else every user waits for every other

from triptych import DetectionClient  # noqa: E402
from triptych.errors import ImageError, TriptychError  # noqa: E402
from triptych.load.payloads import Payload, payloads, read_images  # noqa: E402
from triptych.load.recorder import Recorder  # noqa: E402
from triptych.load.shapes import SHAPES, share, users_at  # noqa: E402

REQUEST_TIMEOUT_S = 10.0
"""How long a request may take."""

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
        duration_s: of the whole load.
    """

    rate: float = 0.0
    poisson: bool = False
    fps: float = 0.0
    shape: str = "constant"
    duration_s: float = 0.0

    @property
    def user_class(self) -> type[User]:
        """Who carries it out."""
        return ArrivalUser if self.rate else CameraUser if self.fps else DetectionUser

    def rate_at(self, elapsed_s: float) -> float:
        """Requests a second of an open loop's user, so long after it began."""
        return self.rate * share(self.shape, elapsed_s / self.duration_s if self.duration_s else 0.0)


def add_options(parser: Any) -> None:
    """Options that both `locust -f` and `python loadtest` have."""
    add = parser.add_argument
    add("--images", required=True, metavar="DIR", help="images to send, in turn")
    add("--batch", type=int, default=1, metavar="N", help="images in a request (1)")
    add("--sizes", nargs="+", default=[], metavar="WxH", help="send each image scaled to each of these sizes, in turn")
    add("--poisson", action="store_true", help="with --rate: random gaps, exponentially distributed")
    add("--fps", type=float, default=0, metavar="N", help="users are cameras that send N frames a second each")
    add("--shape", choices=SHAPES, default="constant", help="how the load changes: of users, or of the rate (constant)")


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def _options(parser: Any, **_other: object) -> None:
    add_options(parser)
    parser.add_argument("--rate", type=float, default=0, metavar="N", help="open loop: requests a second of each user")


@events.init.add_listener  # type: ignore[untyped-decorator]
def _prepare(environment: Any, **_other: object) -> None:
    """For `locust -f`: read every image once; choose the loop; have a worker's reports carry what it recorded."""
    options = environment.parsed_options
    if not options:
        return  # `python loadtest` does it itself
    environment.payloads = payloads(read_images(Path(options.images)), options.batch, options.sizes)
    environment.user_classes = [_load(options).user_class]
    if options.shape != "constant" and not options.rate:
        environment.shape_class = UsersOverTime(options)
    if isinstance(environment.runner, WorkerRunner):
        recorder = Recorder()
        environment.events.request.add_listener(recorder)

        def add(client_id: str, data: dict[str, Any]) -> None:  # noqa: ARG001  # Locust names them
            data["triptych"] = recorder.take()

        environment.events.report_to_master.add_listener(add)


def _load(options: Namespace) -> Load:
    return Load(options.rate, options.poisson, options.fps, options.shape, float(options.run_time or 0))


class UsersOverTime(LoadTestShape):  # type: ignore[misc]  # Locust is not typed
    """`--shape` for `locust -f`: of `--users`, over `--run-time`."""

    abstract = True  # Locust would use every shape that it finds in a locustfile
    use_common_options = True

    def __init__(self, options: Namespace) -> None:
        """Take what the command line says, or the web page later."""
        super().__init__()
        self.options = options

    def tick(self) -> tuple[int, float] | None:
        """How many users there are now, and how fast they come."""
        at = self.get_run_time() / float(self.options.run_time) if self.options.run_time else 0.0
        users = self.options.num_users or 1
        return (users_at(self.options.shape, at, users), float(users)) if at < 1 else None


class _Sender(User):  # type: ignore[misc]
    """A user with a connection of its own, as separate clients would have."""

    abstract = True

    def on_start(self) -> None:
        # `python loadtest` sets the environment's load; with `locust -f` the web page may have changed the options.
        self.load: Load = getattr(self.environment, "load", None) or _load(self.environment.parsed_options)
        self.client = DetectionClient(self.environment.host, retries=0, timeout_s=REQUEST_TIMEOUT_S)
        self.payloads: Iterator[Payload] = itertools.cycle(self.environment.payloads)
        self.request_ids = map(f"{secrets.token_hex(4)}-{{}}".format, itertools.count())
        with contextlib.suppress(TriptychError):  # the first request will say so
            self.client.spec()  # connects, and asks what only the first request would ask

    def on_stop(self) -> None:
        self.client.close()

    def send(self, due: float) -> None:
        """One request, due at a time of `time.perf_counter`; a refused image is a failure like any other."""
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
        self._report(payload.name, (time.perf_counter() - due) * 1000, failure, request_id)

    def _report(self, name: str, latency_ms: float, failure: Exception | None, request_id: str) -> None:
        self.environment.events.request.fire(
            request_type="grpc",
            name=name,
            response_time=latency_ms,
            response_length=0,
            exception=failure,
            context={"request_id": request_id},
        )


class DetectionUser(_Sender):
    """Sends, waits for the detections, sends the next."""

    wait_time = constant(0)

    @task  # type: ignore[untyped-decorator]
    def detect(self) -> None:
        self.send(time.perf_counter())


class ArrivalUser(_Sender):
    """Sends at a rate, each request when it is due, however long the others take."""

    def on_start(self) -> None:
        super().on_start()
        self.sending = Pool(MOST_IN_FLIGHT)
        self.random = random.Random()  # noqa: S311  # no secret
        self.began = time.perf_counter()
        self.due = self.began + self.random.uniform(0, 1 / self.load.rate)  # several users take turns
        gevent.sleep(self.due - self.began)

    def on_stop(self) -> None:
        self.sending.join(REQUEST_TIMEOUT_S)
        super().on_stop()

    @task  # type: ignore[untyped-decorator]
    def arrive(self) -> None:
        self.sending.spawn(self.send, self.due)
        rate = self.load.rate_at(self.due - self.began)
        self.due += self.random.expovariate(rate) if self.load.poisson else 1 / rate

    def wait_time(self) -> float:
        return max(0.0, self.due - time.perf_counter())


class CameraUser(_Sender):
    """Sends a frame each time that one is due; of those that come while an answer is awaited, the newest alone."""

    def on_start(self) -> None:
        super().on_start()
        self.period_s = 1 / self.load.fps
        self.due = time.perf_counter() + random.uniform(0, self.period_s)  # noqa: S311  # cameras are not in step
        gevent.sleep(max(0.0, self.due - time.perf_counter()))

    @task  # type: ignore[untyped-decorator]
    def frame(self) -> None:
        self.send(self.due)
        came = int((time.perf_counter() - self.due) / self.period_s)
        for _ in range(came - 1):
            dropped = FrameDropped(f"the answer to an earlier frame had not come after {self.period_s * 1e3:.0f} ms")
            self._report("frame", 0.0, dropped, "")
        self.due += max(1, came) * self.period_s

    def wait_time(self) -> float:
        return max(0.0, self.due - time.perf_counter())
