"""The servers that a client may ask: whose turn it is, which of them fail, and how much may be sent again.

A circuit steers requests and refuses none. It opens after failures in a row, and the requests go elsewhere. Later a
health check, and no user's request, tries whether the server is back. If every circuit is open, the requests go to all
servers in turn, as if none was.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

FAILURES_TO_OPEN = 5
"""How many failures in a row open a circuit."""

OPEN_S = 1.0
"""How long an open circuit waits for its first health check. Each one that fails doubles it."""

MAX_OPEN_S = 30.0

BUDGET_SHARE = 0.1
"""How many more requests may be sent for each that a method of the client sends."""

BUDGET_AT_FIRST = 10.0
"""How many requests a new client may send again."""

BUDGET_MOST = 100.0
"""How many it may save up."""


@dataclass
class _Circuit:
    """How one server fares; `trial_at` is when its circuit may be tried, None while it is closed."""

    failures: int = 0
    trial_at: float | None = None
    pause_s: float = OPEN_S
    on_trial: bool = False


class Endpoints:
    """The servers of one client, by number. Threads may share it."""

    def __init__(self, addresses: Sequence[str], clock: Callable[[], float], first: int | None = None) -> None:
        """Begin with all circuits closed.

        Args:
            addresses: host:port of each server.
            clock: seconds that only grow.
            first: whose turn it is first; None: chance decides, so that many clients do not begin with the same one.
        """
        self.addresses = tuple(addresses)
        self._clock = clock
        self._circuits = [_Circuit() for _ in addresses]
        self._turn = random.randrange(len(addresses)) if first is None else first  # noqa: S311
        self._budget = BUDGET_AT_FIRST
        self._lock = threading.Lock()

    def next(self, tried: Collection[int] = ()) -> int:
        """Return whose turn it is: one with a closed circuit that was not tried, where there is one."""
        with self._lock:
            count = len(self.addresses)
            turns = [(self._turn + step) % count for step in range(count)]
            self._turn = (self._turn + 1) % count
            # False sorts before True, and `min` takes the first of equals.
            return min(turns, key=lambda number: (number in tried, self._circuits[number].trial_at is not None))

    def is_fresh(self, number: int, tried: Collection[int]) -> bool:
        """Return whether a server was not tried and its circuit is closed, so that no pause is needed."""
        return number not in tried and self._circuits[number].trial_at is None

    def is_open(self, number: int) -> bool:
        """Return whether the circuit of a server is open."""
        return self._circuits[number].trial_at is not None

    def answered(self, number: int) -> None:
        """Take note that a server answered a request; its circuit closes."""
        circuit = self._circuits[number]
        if circuit.failures or circuit.trial_at is not None:  # so that all goes without the lock while all is well
            with self._lock:
                self._circuits[number] = _Circuit()

    def failed(self, number: int) -> None:
        """Take note that a server did not answer a request; after enough of these its circuit opens."""
        with self._lock:
            circuit = self._circuits[number]
            circuit.failures += 1
            if circuit.failures >= FAILURES_TO_OPEN and circuit.trial_at is None:
                circuit.trial_at = self._clock() + circuit.pause_s

    def due(self) -> list[int]:
        """Return the servers whose health is to be checked now; none if there is only one server."""
        if len(self.addresses) == 1 or not any(circuit.trial_at for circuit in self._circuits):
            return []
        with self._lock:
            now = self._clock()
            due = [
                number
                for number, circuit in enumerate(self._circuits)
                if circuit.trial_at is not None and circuit.trial_at <= now and not circuit.on_trial
            ]
            for number in due:
                self._circuits[number].on_trial = True
            return due

    def checked(self, number: int, healthy: bool) -> None:
        """Take the outcome of a health check. After a good one the next failure opens the circuit again."""
        with self._lock:
            circuit = self._circuits[number]
            circuit.on_trial = False
            if healthy:
                circuit.failures, circuit.trial_at = FAILURES_TO_OPEN - 1, None
            else:
                circuit.pause_s = min(2 * circuit.pause_s, MAX_OPEN_S)
                circuit.trial_at = self._clock() + circuit.pause_s

    def earn(self) -> None:
        """Take note of a request, which earns its share of another one."""
        with self._lock:
            self._budget = min(self._budget + BUDGET_SHARE, BUDGET_MOST)

    def spend(self) -> bool:
        """Return whether a request may be sent once more, and count it."""
        with self._lock:
            if self._budget < 1:
                return False
            self._budget -= 1
            return True
