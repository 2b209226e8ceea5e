"""More than the service can answer, for minutes."""

from __future__ import annotations

import asyncio
import time

from faults.load import ANSWERED, LOST, Call, Tally
from faults.scenario import Bench, Outcome, Scenario, judge
from support.images import JPEG
from triptych.client import AsyncDetectionClient
from triptych.errors import DeadlineExceeded, ServerOverloaded, TriptychError

TIMES = 3
GOODPUT = 0.8
USERS = 8
DEADLINE_S = 2.0


async def _send(client: AsyncDetectionClient) -> Call:
    sent_s = time.monotonic()
    try:
        await asyncio.wait_for(client.detect(JPEG, timeout_s=DEADLINE_S), DEADLINE_S + 10)
        outcome = ANSWERED
    except asyncio.TimeoutError:
        outcome = LOST
    except TriptychError as error:
        outcome = type(error).__name__
    return Call(sent_s, time.monotonic(), outcome)


async def _overload(address: str, seconds: float) -> tuple[float, list[Call], Call]:
    """Return the capacity in answers a second, what became of three times as much, and the next lone request."""
    async with AsyncDetectionClient(address, retries=0) as client:

        async def user(end_s: float) -> int:
            answered = 0
            while time.monotonic() < end_s:
                answered += (await _send(client)).outcome == ANSWERED
            return answered

        capacity_s = max(3.0, seconds / 10)
        end_s = time.monotonic() + capacity_s
        per_s = sum(await asyncio.gather(*(user(end_s) for _ in range(USERS)))) / capacity_s
        began_s, sends = time.monotonic(), []
        for number in range(round(TIMES * per_s * seconds)):
            await asyncio.sleep(max(0.0, began_s + number / per_s / TIMES - time.monotonic()))
            sends.append(asyncio.create_task(_send(client)))
        calls = list(await asyncio.gather(*sends))
        return per_s, calls, await _send(client)


def overload(bench: Bench) -> Outcome:
    """Send three times what a detector of 25 ms can answer, each request with a deadline of 2 s."""
    seconds = 6.0 if bench.short else 120.0
    steady = bench.service.repository / "detector" / "1" / "steady"
    steady.touch()
    try:
        per_s, calls, lone = asyncio.run(_overload(bench.service.address, seconds))
    finally:
        steady.unlink()
    tally = Tally.of(calls, calls[0].sent_s)
    tally.back_s = lone.ended_s - max(call.ended_s for call in calls)
    broken = judge(tally, may_fail=True)
    broken += [f"{count} {kind}" for kind, count in tally.outcomes.items() if kind not in _EXPECTED]
    took_s = max(call.ended_s for call in calls) - calls[0].sent_s
    goodput = tally.outcomes[ANSWERED] / took_s / per_s
    if goodput < GOODPUT and not bench.short:  # a few seconds of a busy machine show little
        broken.append(f"{goodput:.0%} of the capacity was answered, and {GOODPUT:.0%} should be")
    if lone.outcome != ANSWERED:
        broken.append(f"the next lone request ended as {lone.outcome}")
    waits_s = sorted(call.ended_s - call.sent_s for call in calls if call.outcome == ANSWERED)
    p95_s = waits_s[int(0.95 * len(waits_s))] if waits_s else 0.0
    return Outcome(
        tally, broken, f"{seconds:.0f} s; {goodput:.0%} of the capacity of {per_s:.0f}/s answered, p95 {p95_s:.2f} s"
    )


_EXPECTED = (ANSWERED, LOST, ServerOverloaded.__name__, DeadlineExceeded.__name__)

SCENARIOS = [
    Scenario(
        "overload",
        "three times the capacity, deadlines of 2 s",
        "80% of the capacity is answered, the rest is refused, and the next request is answered at once",
        overload,
    )
]
