"""A fault as a small function, what it is done to, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from faults.load import ANSWERED, LOST, WRONG, Tally, Users
from faults.service import Service
from triptych import Detections

BACK_WITHIN_S = 90.0


class Skipped(Exception):
    """This machine cannot do this fault."""


@dataclass
class Bench:
    """What a fault is done to.

    Attributes:
        directory: for files; on a disk of its own under `small`, if mounts are private.
        service: the service.
        adapted: the detector's ONNX that it serves.
        good: the right answer to the users' image.
        short: whether time is short.
        minutes: of the soak.
    """

    directory: Path
    service: Service
    adapted: Path
    good: Detections
    short: bool
    minutes: float

    def users(self, count: int = 3, timeout_s: float = 5.0) -> Users:
        """Return users of the service."""
        return Users(self.service.address, self.good, count, timeout_s)


@dataclass
class Outcome:
    """What came of a fault.

    Attributes:
        tally: of all requests; its `back_s` is of the whole fault.
        broken: what should have held and did not.
        note: what else was seen.
    """

    tally: Tally
    broken: list[str] = field(default_factory=list)
    note: str = ""

    @classmethod
    def none(cls) -> Outcome:
        """Return an outcome of nothing yet."""
        return cls(Tally())


@dataclass(frozen=True)
class Scenario:
    """A fault.

    Attributes:
        name: for `--only`.
        fault: what is done.
        holds: what must hold.
        run: does it.
        is_short: whether the short form has it.
    """

    name: str
    fault: str
    holds: str
    run: Callable[[Bench], Outcome]
    is_short: bool = True


def judge(tally: Tally, *, may_fail: bool, back: bool = True) -> list[str]:
    """Return what is wrong with a tally in any scenario: lost or wrong answers, failures where there may be none."""
    broken = [f"{tally.outcomes[kind]} {kind}" for kind in (LOST, WRONG) if tally.outcomes[kind]]
    if not may_fail:
        failures = {kind: count for kind, count in tally.outcomes.items() if kind not in (ANSWERED, LOST, WRONG)}
        broken += [f"{count} {kind}" for kind, count in failures.items()]
    if not tally.outcomes[ANSWERED]:
        broken.append("nothing was answered")
    if not back or tally.back_s == float("inf"):
        broken.append(f"it was not back within {BACK_WITHIN_S:.0f} s")
    return broken


def table(rows: Sequence[tuple[Scenario, Outcome | str]]) -> str:
    """Return the outcomes as Markdown; a scenario that was skipped has its reason."""
    columns = ("fault", "back after, s", "sent", "answered", "refused", "late", "failed with a reason", "lost", "held")
    lines = [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    for scenario, outcome in rows:
        if isinstance(outcome, str):
            lines.append(f"| {scenario.name}: {scenario.fault} | | | | | | | | skipped: {outcome} |")
            continue
        tally = outcome.tally
        counts = (tally.sent, tally.outcomes[ANSWERED], tally.refused, tally.late, tally.failed, tally.outcomes[LOST])
        held = f"no: {'; '.join(outcome.broken)}" if outcome.broken else "yes"
        note = f". {outcome.note}" if outcome.note else ""
        cells = [f"{scenario.name}: {scenario.fault}{note}", f"{tally.back_s:.1f}", *map(str, counts), held]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
