"""A virtual server: its truth, and what becomes of every request that a load sends to it, in virtual time.

The detector is a queue with so many instances (G/G/c, first come, first served); the other stages take a fixed time.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from triptych_loadtest.load_test import LoadTest
from triptych_loadtest.loops import CATCH_UP_S, MOST_IN_FLIGHT, PAUSE_S

PREPROCESS_MS = {"queue": 0.25, "input": 0.5, "infer": 3.0, "output": 0.25}
POSTPROCESS_MS = {"queue": 0.125, "input": 0.25, "infer": 1.5, "output": 0.125}
INPUT_SHARE, OUTPUT_SHARE = 0.03, 0.02  # of the time that a request has an instance of the detector
OVERHEAD_MS = 0.5
NETWORK_MS = 1.5
"""What every request of every virtual server takes but for the detector's queue and its time in the model."""

FIXED_MS = sum(PREPROCESS_MS.values()) + sum(POSTPROCESS_MS.values()) + OVERHEAD_MS + NETWORK_MS

QUEUE_FULL, LOST = "ServerOverloaded", "ServerUnavailable"

Kind = Literal["constant", "lognormal", "exponential"]


@dataclass(frozen=True)
class VirtualServer:
    """The truth about a server.

    Attributes:
        service_ms: for how long the detector's instance is taken by a request, on average.
        kind: how that varies.
        spread: of `lognormal`, the standard deviation of the logarithm.
        instances: of the detector.
        queue_limit: requests that may wait for an instance; further ones are refused. None: any number.
        loss: the share of requests that end in an error all the same, 0..1.
        slow_factor: how many times as long the detector takes in slow phases, which come and go.
        phase_s: how long a phase is, on average; phases make neighbouring requests alike.
        warm_up_s: how long it takes to get warm: at first the detector takes twice as long.
        restart_s: when it is started again, in seconds since the load began; what it held is lost. None: never.
    """

    service_ms: float = 20.0
    kind: Kind = "lognormal"
    spread: float = 0.2
    instances: int = 1
    queue_limit: int | None = None
    loss: float = 0.0
    slow_factor: float = 1.0
    phase_s: float = 1.0
    warm_up_s: float = 0.0
    restart_s: float | None = None

    def __str__(self) -> str:
        varies = {"constant": "", "lognormal": f" (±{100 * self.spread:g}%)", "exponential": " (exponential)"}
        words = [f"{self.service_ms:g} ms{varies[self.kind]}"]
        words += [f"{self.instances} instances"] if self.instances > 1 else []
        words += [f"phases of {self.slow_factor:g}x"] if self.slow_factor > 1 else []
        words += [f"a queue of {self.queue_limit}"] if self.queue_limit is not None else []
        words += [f"{100 * self.loss:g}% lost"] if self.loss else []
        words += [f"a warm-up of {self.warm_up_s:g} s"] if self.warm_up_s else []
        words += ["a restart"] if self.restart_s is not None else []
        return ", ".join(words)

    @property
    def capacity_per_s(self) -> float:
        """Requests a second that all instances can answer together, half of the time being slow."""
        return self.instances * 1000 / self.service_ms * (1 + 1 / self.slow_factor) / 2

    @property
    def least_ms(self) -> float:
        """What a request takes on average by the client's clock if it need not wait; without slow phases."""
        return FIXED_MS + self.service_ms


@dataclass
class Request:
    """One request, in seconds of virtual time and in milliseconds.

    Attributes:
        user: who sent it.
        due_s: when it was due.
        sent_s: when it was sent.
        queue_ms: for how long it waited for an instance of the detector.
        service_ms: for how long it had one.
        done_s: when the client had its answer.
        failure: the name of the error; empty if it succeeded.
    """

    user: int
    due_s: float
    sent_s: float
    queue_ms: float = 0.0
    service_ms: float = 0.0
    done_s: float = 0.0
    failure: str = ""

    @property
    def latency_ms(self) -> float:
        """From when it was due to its answer."""
        return (self.done_s - self.due_s) * 1000

    @property
    def late_ms(self) -> float:
        """By how much later it was sent than it was due."""
        return (self.sent_s - self.due_s) * 1000


@dataclass
class Sent:
    """What a load sent.

    Attributes:
        requests: in the order in which they were answered.
        dropped: frames that cameras did not send.
        unsent: requests that were due, and for which there was no time.
    """

    requests: list[Request]
    dropped: int = 0
    unsent: int = 0


class Service:
    """How long each request has an instance, from random numbers of its own."""

    def __init__(self, server: VirtualServer, seed: int) -> None:
        self._server, self._random = server, np.random.default_rng([seed, 1])
        self._drawn: Iterator[float] = iter(())
        self._phase_end_s, self._is_slow = -math.inf, bool(self._random.integers(2))

    def ms(self, at_s: float) -> float:
        """Return the next one's milliseconds; times do not go backwards."""
        return self._server.service_ms * self._factor(at_s) * self._next()

    def _next(self) -> float:
        drawn = next(self._drawn, None)
        if drawn is None:
            self._drawn = iter(self._draw(1000).tolist())
            drawn = next(self._drawn)
        return drawn

    def _draw(self, count: int) -> npt.NDArray[np.float64]:
        if self._server.kind == "constant":
            return np.ones(count)
        if self._server.kind == "exponential":
            return self._random.exponential(1, count)
        spread = self._server.spread
        return np.asarray(np.exp(self._random.normal(-(spread**2) / 2, spread, count)))

    def _factor(self, at_s: float) -> float:
        factor = 1.0
        if self._server.slow_factor > 1:
            if self._phase_end_s == -math.inf:
                self._phase_end_s = at_s + self._random.exponential(self._server.phase_s)
            while at_s > self._phase_end_s:
                self._phase_end_s += self._random.exponential(self._server.phase_s)
                self._is_slow = not self._is_slow
            factor *= self._server.slow_factor if self._is_slow else 1.0
        if self._server.warm_up_s:
            factor *= 1 + math.exp(-3 * at_s / self._server.warm_up_s)
        return factor


BEFORE_MS = NETWORK_MS / 2 + OVERHEAD_MS / 2 + sum(PREPROCESS_MS.values())
AFTER_MS = NETWORK_MS / 2 + OVERHEAD_MS / 2 + sum(POSTPROCESS_MS.values())


def send(server: VirtualServer, service: Service, test: LoadTest, begin_s: float, seconds: float, seed: int) -> Sent:
    """Send a load for so long, and let what is in flight end.

    Args:
        server: what answers.
        service: its times.
        test: the load.
        begin_s: when it begins.
        seconds: for how long requests are sent.
        seed: of arrivals, phases and losses.
    """
    return _Simulation(server, service, test, begin_s, begin_s + seconds, np.random.default_rng([seed, 2])).run()


_FREE, _ARRIVES, _DUE = 0, 1, 2  # of what happens at the same time, an instance is free first


class _Simulation:
    def __init__(
        self,
        server: VirtualServer,
        service: Service,
        test: LoadTest,
        begin_s: float,
        end_s: float,
        rng: np.random.Generator,
    ) -> None:
        self.server, self.service, self.test = server, service, test
        self.begin_s, self.end_s, self.random = begin_s, end_s, rng
        self.loop = test.profile.loop
        self.sent = Sent([])
        self.events: list[tuple[float, int, int, Request]] = []
        self.numbers = itertools.count()
        self.waiting: deque[tuple[float, Request]] = deque()
        self.unsent: deque[float] = deque()
        self.in_flight = 0
        self.free = server.instances
        is_to_come = server.restart_s is not None and server.restart_s >= begin_s
        self.restart_s = server.restart_s if server.restart_s is not None and is_to_come else math.inf

    def run(self) -> Sent:
        self.start()
        while self.events:
            now_s, what, _, request = heapq.heappop(self.events)
            if now_s >= self.restart_s:
                self.at(now_s, what, request)
                self.restart()
            elif what == _FREE:
                self.finish(request, now_s)
            elif what == _DUE:
                self.unsent.append(now_s)
                self.send_due(now_s)
            else:
                self.arrive(request, now_s)
        self.sent.unsent = len(self.unsent)
        return self.sent

    def start(self) -> None:
        """Send what is sent whatever the answers are, or the first request of each user."""
        if self.test.rate_per_s:
            for due_s in self.due():
                self.at(due_s, _DUE, Request(0, due_s, due_s))
            return
        for user in range(self.test.users):
            first_s = self.begin_s + (self.random.uniform(0, 1 / self.test.fps) if self.test.fps else 0.0)
            self.issue(user, first_s, first_s)

    def due(self) -> list[float]:
        """Return when the requests of an open loop are due."""
        rate_per_s, seconds = self.test.rate_per_s, self.end_s - self.begin_s
        if not self.test.poisson:
            phase = self.random.random()
            count = int(rate_per_s * seconds - phase) + 1
            return [self.begin_s + (number + phase) / rate_per_s for number in range(count)]
        gaps_s = self.random.exponential(1 / rate_per_s, int(1.5 * rate_per_s * seconds) + 50)
        times_s = self.begin_s + np.cumsum(gaps_s)
        return [float(when_s) for when_s in times_s[times_s < self.end_s]]

    def at(self, when_s: float, what: int, request: Request) -> None:
        heapq.heappush(self.events, (when_s, what, next(self.numbers), request))

    def send_due(self, now_s: float) -> None:
        """Send what was due in an open loop, as far as so many may be in flight."""
        while self.unsent and self.in_flight < MOST_IN_FLIGHT and now_s < self.end_s + CATCH_UP_S:
            self.in_flight += 1
            self.at(now_s + BEFORE_MS / 1000, _ARRIVES, Request(0, self.unsent.popleft(), now_s))

    def issue(self, user: int, due_s: float, sent_s: float) -> None:
        if sent_s < self.end_s:
            self.at(sent_s + BEFORE_MS / 1000, _ARRIVES, Request(user, due_s, sent_s))

    def arrive(self, request: Request, now_s: float) -> None:
        if self.free:
            self.free -= 1
            self.begin(request, now_s, now_s)
        elif self.server.queue_limit is not None and len(self.waiting) >= self.server.queue_limit:
            self.fail(request, now_s, QUEUE_FULL)
        else:
            self.waiting.append((now_s, request))

    def begin(self, request: Request, since_s: float, now_s: float) -> None:
        request.queue_ms = (now_s - since_s) * 1000
        request.service_ms = self.service.ms(now_s)
        self.at(now_s + request.service_ms / 1000, _FREE, request)

    def finish(self, request: Request, now_s: float) -> None:
        if self.waiting:
            since_s, following = self.waiting.popleft()
            self.begin(following, since_s, now_s)
        else:
            self.free += 1
        if self.server.loss and self.random.random() < self.server.loss:
            self.fail(request, now_s, LOST)
        else:
            request.done_s = now_s + AFTER_MS / 1000
            self.answered(request)

    def fail(self, request: Request, now_s: float, why: str) -> None:
        request.failure, request.done_s = why, now_s + NETWORK_MS / 2000
        self.answered(request)

    def restart(self) -> None:
        """Lose what the server holds."""
        lost = [request for _, what, _, request in self.events if what == _FREE]
        lost += [request for _, request in self.waiting]
        self.events = [event for event in self.events if event[1] != _FREE]
        heapq.heapify(self.events)
        self.waiting.clear()
        self.free, now_s, self.restart_s = self.server.instances, self.restart_s, math.inf
        for request in lost:
            self.fail(request, now_s, LOST)

    def answered(self, request: Request) -> None:
        """Take an answer or an error, and let its user go on."""
        self.sent.requests.append(request)
        if self.loop == "closed":
            next_s = request.done_s + (PAUSE_S if request.failure == LOST else 0.0)
            self.issue(request.user, next_s, next_s)
        elif self.loop == "camera":
            came = int((min(request.done_s, self.end_s) - request.due_s) * self.test.fps)
            self.sent.dropped += max(0, came - 1)
            due_s = request.due_s + max(1, came) / self.test.fps
            self.issue(request.user, due_s, max(due_s, request.done_s))
        else:
            self.in_flight -= 1
            self.send_due(request.done_s)
