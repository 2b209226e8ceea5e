"""Users for Locust: `locust -f loadtest/locustfile.py --host 127.0.0.1:8001 --images DIR`.

Locust patches the standard library for gevent when it is imported, so it comes first; gRPC must be told before the
first channel, else every user of a process waits for every other.
"""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import grpc.experimental.gevent
from locust import User, constant, events, task

grpc.experimental.gevent.init_gevent()

from triptych import DetectionClient  # noqa: E402
from triptych.images import image_files  # noqa: E402


@events.init_command_line_parser.add_listener
def _options(parser, **_kwargs):
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="images to send, in turn")


@events.init.add_listener
def _read_images(environment, **_kwargs):
    """Read every image once; all users send the same bytes."""
    if environment.parsed_options:
        environment.images = [path.read_bytes() for path in image_files(environment.parsed_options.images)]


class DetectionUser(User):
    """Sends one image, waits for its detections, sends the next."""

    wait_time = constant(0)

    def on_start(self):
        """One connection a user, as separate clients would have."""
        self.client = DetectionClient(self.environment.host, retries=0)
        self.images = itertools.cycle(self.environment.images)

    def on_stop(self):
        self.client.close()

    @task
    def detect(self):
        """One request; a refused image counts as a failure like any other."""
        started = time.perf_counter()
        failure = None
        try:
            self.client.detect(next(self.images))
        except Exception as error:  # Locust's contract: whatever went wrong is reported, and the user goes on
            failure = error
        self.environment.events.request.fire(
            request_type="grpc",
            name="detect",
            response_time=(time.perf_counter() - started) * 1000,
            response_length=0,
            exception=failure,
            context={},
        )
