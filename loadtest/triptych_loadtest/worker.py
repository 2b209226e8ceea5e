"""A process with some of a load test's users: `python -m triptych_loadtest.worker FD`, which `Generator` starts.

It connects its users, says so, and then takes part in phase after phase: it gets when one begins and ends, and reports
what its users see. It ends when nobody listens any more.
"""

import locust  # noqa: F401, I001  # first: it patches the standard library for gevent

import os
import sys
import time
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import gevent
from gevent.event import Event
from gevent.socket import wait_read
from locust.env import Environment

from triptych_loadtest.load_test import LoadTest, Phase
from triptych_loadtest.payloads import Payloads
from triptych_loadtest.recorder import Report
from triptych_loadtest.users import DetectionUser

REPORT_S = 1.0
"""How often it reports, in a phase."""


class Worker:
    """The users of one process."""

    def __init__(self, pipe: "Connection[Any, Any]", test: LoadTest, process: int, payloads: Payloads) -> None:
        """Connect the users."""
        self._pipe, self._test = pipe, test
        self._report, self._cpu_s = Report(), time.process_time()
        environment = Environment(user_classes=[DetectionUser])
        environment.events.request.add_listener(lambda **request: self._report(**request))
        self._users: dict[int, Any] = {number: DetectionUser(environment) for number in test.numbers(process)}
        for number, user in self._users.items():
            user.number = str(number)
        how = (test.address, test.profile, payloads, test.credentials)
        gevent.joinall([gevent.spawn(user.connect, *how) for user in self._users.values()], raise_error=True)

    def take_part(self, phase: Phase) -> None:
        """Have the users take part in a phase, and report until it is over."""
        over = Event()
        reporting = gevent.spawn(self._keep_reporting, over)
        users = [
            gevent.spawn(user.take_part, phase, partial(self._test.turn_s, number))
            for number, user in self._users.items()
        ]
        gevent.joinall(users, raise_error=True)
        over.set()
        reporting.join()
        self.report(done=True)

    def _keep_reporting(self, over: Event) -> None:
        while not over.wait(REPORT_S):
            self.report()

    def report(self, *, done: bool = False) -> None:
        """Send what was seen since the last report; end the process where nobody wants to know."""
        report, self._report = self._report, Report()
        now_s = time.process_time()
        report.cpu_s, self._cpu_s, report.done = now_s - self._cpu_s, now_s, done
        try:
            # Not in this thread, where all users would wait for whoever reads.
            gevent.get_hub().threadpool.apply(self._pipe.send, (report,))
        except OSError:
            os._exit(1)


def main() -> None:
    """Work until nobody listens."""
    pipe: Connection[Any, Any] = Connection(int(sys.argv[1]))
    worker = Worker(pipe, *pipe.recv())
    worker.report(done=True)
    while True:
        wait_read(pipe.fileno())
        try:
            phase = pipe.recv()
        except (EOFError, OSError):
            break
        worker.take_part(phase)
    os._exit(0)  # at once: gevent and gRPC would write tracebacks if the interpreter took them down


if __name__ == "__main__":
    main()
