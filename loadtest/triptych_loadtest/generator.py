"""The processes that send a load test's requests, seen from the one that started them."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import IO, Any

from triptych.errors import MeasurementError
from triptych_loadtest.load_test import LoadTest, Phase
from triptych_loadtest.loops import REQUEST_TIMEOUT_S
from triptych_loadtest.payloads import Payloads
from triptych_loadtest.recorder import Report

START_TIMEOUT_S = 60.0
"""How long the processes may take to start and to connect their users."""

END_TIMEOUT_S = 2 * REQUEST_TIMEOUT_S
"""How long after the end of a phase they may take until the last answer is there."""

LEAD_S = 0.2
"""How long before it begins they are told of a phase."""

TICK_S = 0.1
"""How often whoever waits for them is called."""

EXIT_TIMEOUT_S = 3.0
"""How long they may take to end."""


@dataclass(frozen=True)
class Sender:
    """One of the processes.

    Attributes:
        name: for messages.
        process: itself.
        pipe: to it.
        log: its standard error.
    """

    name: str
    process: subprocess.Popen[bytes]
    pipe: Connection[Any, Any]
    log: IO[bytes]

    @classmethod
    def start(cls, name: str) -> Sender:
        """Start a process, which waits to be told what to send."""
        ours, theirs = Pipe()
        log = tempfile.TemporaryFile()  # noqa: SIM115  # as long as the process
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "triptych_loadtest.worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C in the terminal reaches us alone
            )
        return cls(name, process, ours, log)

    def died(self) -> MeasurementError:
        """Say how it ended."""
        try:
            code = self.process.wait(EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return MeasurementError(f"{self.name} closed its connection without a word; measure again")
        self.log.seek(0)
        last = self.log.read().decode(errors="replace").strip().rpartition("\n")[2]
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return MeasurementError(f"{self.name} {how}{f' ({last})' if last and code > 0 else ''}; measure again")

    def end(self) -> None:
        """End it, whatever it does."""
        self.pipe.close()
        try:
            self.process.wait(EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


class Generator:
    """A load test's processes, from when their users are connected."""

    def __init__(self, test: LoadTest, payloads: Payloads) -> None:
        """Prepare to send requests drawn from `payloads`."""
        self._test, self._payloads = test, payloads
        self._senders: list[Sender] = []

    def __enter__(self) -> Generator:
        try:
            self._start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def begin(self, seconds: float) -> Phase:
        """Have all users take part in a phase, and return it; `finish` waits for its end."""
        begins_s = time.monotonic() + LEAD_S
        phase = Phase(begins_s, begins_s + seconds)
        for sender in self._senders:
            self._tell(sender, phase)
        return phase

    def finish(self, phase: Phase, take: Callable[[int, Report], None], tick: Callable[[], None]) -> None:
        """Wait until a phase is over.

        Args:
            phase: which one.
            take: gets the reports of each process, by its number.
            tick: called all the while.

        Raises:
            MeasurementError: a process died, or did not come to an end.
        """
        left_s = phase.ends_s - time.monotonic()
        self._await("come to the end of its requests", left_s + END_TIMEOUT_S, take, tick)

    def _start(self) -> None:
        count = self._test.processes
        for number in range(count):
            of = f" {number + 1} of {count}" if count > 1 else ""
            self._senders.append(Sender.start(f"the load test's process{of}"))
        for number, sender in enumerate(self._senders):
            self._tell(sender, (self._test, number, self._payloads))
        self._await("connect its users", START_TIMEOUT_S, lambda _number, _report: None, lambda: None)

    def _await(
        self, what: str, timeout_s: float, take: Callable[[int, Report], None], tick: Callable[[], None]
    ) -> None:
        """Take reports until every process has sent its last one."""
        numbers = {sender.pipe: number for number, sender in enumerate(self._senders)}
        busy, deadline_s = set(numbers.values()), time.monotonic() + timeout_s
        while busy:
            for pipe in wait(list(numbers), TICK_S):
                number = numbers[pipe]  # type: ignore[index]
                try:
                    report = self._senders[number].pipe.recv()
                except (EOFError, OSError) as error:
                    raise self._senders[number].died() from error
                take(number, report)
                if report.done:
                    busy.discard(number)
            tick()
            if time.monotonic() > deadline_s:
                name = self._senders[min(busy)].name
                raise MeasurementError(f"{name} did not {what} within {timeout_s:.0f} s; measure again")

    @staticmethod
    def _tell(sender: Sender, message: object) -> None:
        try:
            sender.pipe.send(message)
        except OSError as error:
            raise sender.died() from error

    def _end(self) -> None:
        for sender in self._senders:
            sender.end()
