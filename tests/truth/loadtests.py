"""`loadtest`: rate, latencies, failures and drops, and who owns which millisecond."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from triptych.measure.attribution import LATENESS, NETWORK, OVERHEAD, Attribution
from triptych.measure.bounds import BOUNDED
from triptych.measure.bounds import CONFIDENCE as BOUND_CONFIDENCE
from triptych.measure.histogram import RELATIVE_ACCURACY
from triptych_loadtest.load_test import LoadTest
from truth.claims import Experiment, Held
from truth.served import Seen, load, measure, parts_ms, true_latencies_ms
from truth.server import NETWORK_MS, OVERHEAD_MS, POSTPROCESS_MS, PREPROCESS_MS, VirtualServer

ALWAYS = 1.0
EXACT_MS = 1e-3
"""Triton's timestamps are of whole nanoseconds, and some of them are added up."""


def counts(server: VirtualServer, test: LoadTest) -> Experiment:
    """Every request that was due is answered, failed, dropped or reported as unsent; latencies are what they were."""

    def trial(seed: int) -> Held:
        # Without traces, and with a restart, there is nothing to say where the time went, and no run.
        seen = measure(server, test, seed, has_traces=server.restart_s is not None)
        client, truth = seen.run.client, Counter(request.failure for request in seen.sent.requests)
        truth["FrameDropped"] += seen.sent.dropped
        latencies_ms = [request.latency_ms for request in seen.good]
        percentiles = [
            math.isclose(
                client.latencies.percentile_ms(percent),
                np.percentile(latencies_ms, percent, method="inverted_cdf"),
                rel_tol=1.001 * RELATIVE_ACCURACY,
            )
            for percent in (50, 90, 95, 99)
        ]
        failures = {kind: failure.count for kind, failure in client.failures.items()}
        return {
            "answers": client.latencies.count == truth[""],
            "failures by kind": failures == {kind: count for kind, count in truth.items() if kind and count},
            "unsent": client.unsent == seen.sent.unsent,
            "mean": math.isclose(client.latencies.mean_ms, np.mean(latencies_ms), rel_tol=1e-9),
            "percentiles of what was sent": all(percentiles),
        }

    stated = dict.fromkeys(("answers", "failures by kind", "unsent", "mean", "percentiles of what was sent"), ALWAYS)
    return Experiment("loadtest", _words(server, test), trial, stated, quick=5)


def capacity(server: VirtualServer, test: LoadTest) -> Experiment:
    """Users who keep every instance busy are answered at the server's true capacity, to a request of each user."""

    def trial(seed: int) -> Held:
        client = measure(server, test, seed, has_traces=False).run.client
        within = test.users / client.latencies.count
        return {"requests/s": math.isclose(client.rate_per_s, server.capacity_per_s, rel_tol=within)}

    return Experiment("loadtest", _words(server, test), trial, {"requests/s": ALWAYS}, quick=5)


def bounds_hold(server: VirtualServer, test: LoadTest, percents: Sequence[int]) -> Experiment:
    """What is printed as the most that a percentile may be is at least what it truly is."""

    def trial(seed: int) -> Held:
        true_ms = true_latencies_ms(server, test)
        bounds_ms = measure(server, test, seed, has_traces=False).run.client.bounds_ms
        return {
            _bound_of(percent): None if bound is None else bool(bound >= np.percentile(true_ms, percent))
            for percent in percents
            for bound in [bounds_ms.get(f"p{percent}")]
        }

    stated = {_bound_of(percent): BOUND_CONFIDENCE for percent in percents}
    return Experiment("loadtest", _words(server, test), trial, stated)


def _bound_of(percent: int) -> str:
    return f"most that p{percent} may be"


def owners(server: VirtualServer, test: LoadTest, *, has_traces: bool) -> Experiment:
    """Every owner has the milliseconds that were planted, and together they are the latency."""

    def trial(seed: int) -> Held:
        seen = measure(server, test, seed, has_traces=has_traces)
        attribution = seen.run.attribution
        mean = attribution.breakdowns["mean"]
        late = {LATENESS: float(np.mean([one.late_ms for one in seen.good]))}
        sums = [
            math.isclose(sum(breakdown.owners().values()), breakdown.total_ms, abs_tol=EXACT_MS)
            for breakdown in attribution.breakdowns.values()
        ]
        held: dict[str, bool | None] = {
            "parts add up": all(sums),
            "each part of the mean": _close(_flat(mean.stages), _flat(_mean_parts(seen))),
            "overhead, network and lateness": _close(
                {NETWORK: mean.network_and_client_ms, OVERHEAD: mean.ensemble_overhead_ms, **mean.client},
                {NETWORK: NETWORK_MS, OVERHEAD: OVERHEAD_MS, **(late if test.profile.loop != "closed" else {})},
            ),
        }
        return held | ({"each part of p95": _around_p95(attribution)} if has_traces else {})

    figures = [
        "parts add up",
        "each part of the mean",
        "overhead, network and lateness",
        *(["each part of p95"] * has_traces),
    ]
    planted = f"{_words(server, test)}, {'traces' if has_traces else 'statistics'}"
    return Experiment("loadtest", planted, trial, dict.fromkeys(figures, ALWAYS), quick=3)


def restarted(server: VirtualServer, test: LoadTest) -> Experiment:
    """Counters that began anew within the window are refused and said to be so."""

    def trial(seed: int) -> Held:
        run = measure(server, test, seed).run
        return {"said to be started again": bool(run.interrupted) and not run.server}

    return Experiment("loadtest", _words(server, test), trial, {"said to be started again": ALWAYS}, quick=3)


def _mean_parts(seen: Seen) -> dict[str, dict[str, float]]:
    parts = [parts_ms(request) for request in seen.good]
    return {
        stage: {part: float(np.mean([one[stage][part] for one in parts])) for part in named}
        for stage, named in parts[0].items()
    }


def _around_p95(attribution: Attribution) -> bool:
    """Return whether the fixed stages have what was planted in the requests about the p95, to its own accuracy."""
    stages = attribution.breakdowns["p95"].stages
    return _close(stages["preprocess"], PREPROCESS_MS, RELATIVE_ACCURACY) and _close(
        stages["postprocess"], POSTPROCESS_MS, RELATIVE_ACCURACY
    )


def _flat(stages: dict[str, dict[str, float]]) -> dict[str, float]:
    return {f"{stage} {part}": value for stage, parts in stages.items() for part, value in parts.items()}


def _close(ours: dict[str, float], planted: dict[str, float], accuracy: float = 0.0) -> bool:
    return ours.keys() == planted.keys() and all(
        math.isclose(ours[name], planted[name], rel_tol=accuracy, abs_tol=EXACT_MS) for name in ours
    )


def _words(server: VirtualServer, test: LoadTest) -> str:
    return f"{server}, {words_of(test)}"


def words_of(test: LoadTest) -> str:
    """Say what a load is, in a few words."""
    if test.rate_per_s:
        return f"{test.profile.loop} {test.rate_per_s:g}/s"
    return f"{test.users} {f'cameras of {test.fps:g}/s' if test.fps else 'users'}"


VARIED = VirtualServer(spread=0.3)
BURSTY = VirtualServer(kind="exponential", instances=2, slow_factor=2.0)
OVERLOADED = VirtualServer(queue_limit=4, loss=0.02)
SHORT = {"duration_s": 5, "warmup_s": 1}

EXPERIMENTS = [
    counts(VARIED, load(users=4)),
    counts(OVERLOADED, load(rate_per_s=60, poisson=True)),
    counts(VirtualServer(loss=0.05, restart_s=3.0), load(users=4, **SHORT)),
    counts(VARIED, load(users=6, fps=10)),
    counts(VirtualServer(service_ms=4), load(rate_per_s=500, **SHORT)),
    capacity(VirtualServer(kind="constant"), load(users=4)),
    capacity(VirtualServer(kind="constant", instances=3), load(users=12)),
    capacity(VirtualServer(kind="constant", warm_up_s=4.0), load(users=4, warmup_s=8)),
    bounds_hold(VARIED, load(users=1, duration_s=60), BOUNDED),
    bounds_hold(VirtualServer(kind="exponential"), load(rate_per_s=20, poisson=True, duration_s=120), (90, 95)),
    bounds_hold(VirtualServer(slow_factor=1.5, phase_s=0.2), load(users=4, duration_s=60), (90, 95)),
    owners(VARIED, load(users=4, **SHORT), has_traces=True),
    owners(BURSTY, load(rate_per_s=50, poisson=True, **SHORT), has_traces=True),
    owners(VirtualServer(loss=0.1), load(rate_per_s=30, **SHORT), has_traces=True),
    owners(VARIED, load(users=6, fps=10, **SHORT), has_traces=True),
    owners(VARIED, load(users=4), has_traces=False),
    owners(BURSTY, load(rate_per_s=50, poisson=True), has_traces=False),
    restarted(VirtualServer(restart_s=3.0), load(users=4, **SHORT)),
]
