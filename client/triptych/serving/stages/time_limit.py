"""End a stage's process that never comes back from an execution, such as one of several that hangs.

Its siblings go on answering, so nobody else would notice. The time is the kernel's alarm, which needs neither
Python nor its lock, and costs microseconds. Whoever watches over the server then reloads the stage.
"""

from __future__ import annotations

import faulthandler
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

EXECUTE_WITHIN_S = 120.0
"""How long one execution may take; the largest batch of slow images takes half a minute."""

VARIABLE = "TRIPTYCH_EXECUTE_WITHIN_S"
"""The environment variable with that time. It is set by who starts a process again: nobody else could want its end."""


@contextmanager
def time_limit() -> Iterator[None]:
    """End this process if the block takes longer than the variable says; where there is none, it may take for ever.

    The log then has what each of its threads was doing.
    """
    seconds = float(os.environ.get(VARIABLE, "0"))
    if not seconds:
        yield
        return
    if not faulthandler.is_enabled():
        faulthandler.enable()
        faulthandler.register(signal.SIGALRM, chain=True)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
