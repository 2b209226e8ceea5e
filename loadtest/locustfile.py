"""Users for Locust: `locust -f loadtest/locustfile.py --host 127.0.0.1:8001 --images DIR`.

A closed loop by default: each user waits for its answer before it sends the next image. With `--rate N` an open one:
each user sends N images a second whatever the answers do, and a request's latency counts from when it was due.

Locust patches the standard library for gevent when it is imported, so it comes first; gRPC must be told before the
first channel, else every user of a process waits for every other.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import secrets
import time
from contextvars import ContextVar
from pathlib import Path

import gevent
import grpc.experimental.gevent
from gevent.pool import Pool
from locust import User, constant, events, task
from locust.runners import WorkerRunner

grpc.experimental.gevent.init_gevent()

from recorder import Recorder  # noqa: E402
from triptych import DetectionClient  # noqa: E402
from triptych.errors import TriptychError  # noqa: E402
from triptych.images import image_files  # noqa: E402

REQUEST_TIMEOUT_S = 10
"""How long a request may take."""

MOST_IN_FLIGHT = 1000
"""Requests of one open-loop user that may be under way; further ones wait, and that counts as theirs."""


@events.init_command_line_parser.add_listener
def _options(parser, **_kwargs):
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="images to send, in turn")
    parser.add_argument("--rate", type=float, default=0, metavar="N", help="open loop: images a second of each user")
    parser.add_argument("--poisson", action="store_true", help="open loop: random gaps, exponentially distributed")


@events.init.add_listener
def _prepare(environment, **_kwargs):
    """Read every image once, for all users; choose the loop; have a worker's reports carry what it recorded."""
    options = environment.parsed_options
    if not options:
        return
    environment.images = [path.read_bytes() for path in image_files(options.images)]
    environment.rate, environment.poisson = options.rate, options.poisson
    environment.user_classes = [ArrivalUser if options.rate else DetectionUser]
    if isinstance(environment.runner, WorkerRunner):
        recorder = Recorder()
        environment.events.request.add_listener(recorder)
        environment.events.report_to_master.add_listener(
            lambda client_id, data: data.update(triptych=recorder.take())  # noqa: ARG005  # Locust names them
        )


_request_id: ContextVar[str] = ContextVar("request_id")


class _Client(DetectionClient):
    """A client whose requests carry an id, by which the server's traces are found again."""

    def _perform(self, effect):
        if getattr(effect, "rpc", "") == "ModelInfer":
            effect.request.id = _request_id.get()
        return super()._perform(effect)


class _Sender(User):
    """A user with a connection of its own, as separate clients would have."""

    abstract = True

    def on_start(self):
        self.client = _Client(self.environment.host, retries=0, timeout_s=REQUEST_TIMEOUT_S)
        self.images = itertools.cycle(self.environment.images)
        self.request_ids = map(f"{secrets.token_hex(4)}-{{}}".format, itertools.count())
        with contextlib.suppress(TriptychError):  # the first request will say so
            self.client.spec()  # connects, and asks what only the first request would ask

    def on_stop(self):
        self.client.close()

    def send(self, due: float) -> None:
        """One request, due at a time of `time.perf_counter`; a refused image is a failure like any other."""
        request_id = next(self.request_ids)
        _request_id.set(request_id)
        failure = None
        try:
            self.client.detect(next(self.images))
        except Exception as error:  # Locust's contract: whatever went wrong is reported, and the user goes on
            failure = error
        self.environment.events.request.fire(
            request_type="grpc",
            name="detect",
            response_time=(time.perf_counter() - due) * 1000,
            response_length=0,
            exception=failure,
            context={"request_id": request_id},
        )


class DetectionUser(_Sender):
    """Sends one image, waits for its detections, sends the next."""

    wait_time = constant(0)

    @task
    def detect(self):
        self.send(time.perf_counter())


class ArrivalUser(_Sender):
    """Sends images at a rate, each when it is due, however long the others take."""

    def on_start(self):
        super().on_start()
        self.sending = Pool(MOST_IN_FLIGHT)
        self.random = random.Random()  # noqa: S311  # no secret
        gevent.sleep(self.random.uniform(0, 1 / self.environment.rate))  # several users take turns
        self.due = time.perf_counter()

    def on_stop(self):
        self.sending.join(REQUEST_TIMEOUT_S)
        super().on_stop()

    @task
    def arrive(self):
        self.sending.spawn(self.send, self.due)
        rate = self.environment.rate
        self.due += self.random.expovariate(rate) if self.environment.poisson else 1 / rate

    def wait_time(self):
        return max(0, self.due - time.perf_counter())
