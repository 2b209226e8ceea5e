"""Processes that die or stand still: of a model, of the server, of `triptych serve` itself."""

from __future__ import annotations

import os
import signal
import time
from functools import partial

from faults.scenario import BACK_WITHIN_S, Bench, Outcome, Scenario, judge


def of_model(bench: Bench, model: str, number: signal.Signals) -> Outcome:
    """Kill or stop the process of a model; a process that takes its place must answer."""
    victim = next(process for process in bench.service.settled() if process.model == model)
    ends = len(bench.service.ends)

    def replaced() -> bool:
        return victim not in bench.service.models() and bench.service.is_whole()

    with bench.users() as users:
        time.sleep(1)
        fault_s = time.monotonic()
        os.kill(victim.pid, number)
        back = users.settle(fault_s, BACK_WITHIN_S, replaced)
    tally = users.tally(fault_s)
    note = "; ".join(f"serve ended with code {code} and was started again" for code, _ in bench.service.ends[ends:])
    return Outcome(tally, judge(tally, may_fail=True, back=back), note)


def of_server(bench: Bench, number: signal.Signals) -> Outcome:
    """Kill or stop Triton: `triptych serve` must end with code 3 and its reason, and is started again."""
    victim, ends = bench.service.triton(), len(bench.service.ends)
    assert victim is not None
    with bench.users() as users:
        time.sleep(1)
        fault_s = time.monotonic()
        victim.send_signal(number)
        back = users.settle(fault_s, BACK_WITHIN_S, lambda: len(bench.service.ends) > ends)
    tally = users.tally(fault_s)
    broken = judge(tally, may_fail=True, back=back)
    if not bench.service.ends[ends:]:
        return Outcome(tally, [*broken, "serve did not end"])
    code, words = bench.service.ends[ends]
    if code != 3 or "error: the server" not in words:
        broken.append(f"serve ended with code {code} and said {words!r}")
    return Outcome(tally, broken, f"serve said: {words.partition(';')[0]}")


def of_serve(bench: Bench) -> Outcome:
    """Kill `triptych serve`: Triton ends with it, and the next start removes what it left."""
    with bench.users() as users:
        time.sleep(1)
        ends, fault_s = len(bench.service.ends), time.monotonic()
        bench.service.kill()
        back = users.settle(fault_s, BACK_WITHIN_S, lambda: len(bench.service.ends) > ends)
    tally = users.tally(fault_s)
    return Outcome(tally, judge(tally, may_fail=True, back=back))


_MODEL_HOLDS = "a process takes its place without a hand"
_SERVER_HOLDS = "`triptych serve` ends with code 3 and the reason, and serves when it is started again"

SCENARIOS = [
    *(
        Scenario(
            f"kill-{model}",
            f"SIGKILL to the process of {model}",
            _MODEL_HOLDS,
            partial(of_model, model=model, number=signal.SIGKILL),
            is_short=model == "preprocess",
        )
        for model in ("preprocess", "detector", "postprocess")
    ),
    *(
        Scenario(
            f"hang-{model}",
            f"SIGSTOP to the process of {model}",
            _MODEL_HOLDS,
            partial(of_model, model=model, number=signal.SIGSTOP),
            is_short=model == "detector",
        )
        for model in ("preprocess", "detector", "postprocess")
    ),
    Scenario("kill-server", "SIGKILL to Triton", _SERVER_HOLDS, partial(of_server, number=signal.SIGKILL)),
    Scenario(
        "hang-server", "SIGSTOP to Triton", _SERVER_HOLDS, partial(of_server, number=signal.SIGSTOP), is_short=False
    ),
    Scenario(
        "kill-serve",
        "SIGKILL to `triptych serve`",
        "it serves when it is started again, and nothing is left of the one before",
        of_serve,
        is_short=False,
    ),
]
