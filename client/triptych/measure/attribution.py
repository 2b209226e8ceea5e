"""Who took the time: a client's latency split among network, ensemble and stages, so that the parts add up.

    client = network and client + ensemble overhead + preprocess + detector + postprocess (+ the client's own stages)

Pure functions. From Triton's traces, joined to what the client measured by the request's id, every request has its
own split, and percentiles can be explained; from the server's statistics only the mean can.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from triptych.contract import STAGES
from triptych.errors import MeasurementError
from triptych.measure.bounds import PERCENTS
from triptych.measure.histogram import Histogram
from triptych.measure.traces import PARTS, TracedRequest
from triptych.measure.window import Window, summary_line
from triptych.wire.statistics import Counters

Source = Literal["traces", "statistics"]

NETWORK = "network and client"
OVERHEAD = "ensemble overhead"

LATENESS = "lateness in sending"
"""Among the client's own stages: from when a request was due until it was sent."""

WIDEST_WINDOW = 0.025
"""At most this share of all requests on either side of a percentile explains it."""


@dataclass(frozen=True)
class Breakdown:
    """One latency and its parts, in milliseconds.

    Attributes:
        total_ms: by the client's clock; the sum of the others.
        network_and_client_ms: outside of the server's clock: gRPC on both sides, the client.
        ensemble_overhead_ms: between the stages.
        stages: by stage and part (`queue`, `input`, `infer`, `output`).
        client: the client's own stages: those of `track`, and the lateness of a load that is sent on time.
    """

    total_ms: float
    network_and_client_ms: float
    ensemble_overhead_ms: float
    stages: dict[str, dict[str, float]]
    client: dict[str, float] = field(default_factory=dict)

    def owners(self) -> dict[str, float]:
        """Return milliseconds by owner: each stage, ensemble overhead, network and client, the client's own stages."""
        stages = {name: sum(parts.values()) for name, parts in self.stages.items()}
        return {**stages, OVERHEAD: self.ensemble_overhead_ms, NETWORK: self.network_and_client_ms, **self.client}


@dataclass(frozen=True)
class Attribution:
    """Where the time of one load went.

    Attributes:
        source: `traces`, or `statistics` where there were none that could be read.
        requests: how many requests it rests on.
        breakdowns: by `mean`, `p50`, `p90`, `p95`, `p99`; but for traces the mean alone.
        percentiles_ms: p50, p90, p95 and p99 of every owner, and of every `stage part`, each on its own. They do not
            add up: the slowest percent of one stage need not be the slowest of another. From statistics there are none.
        trace_rate: of how many requests one was traced.
    """

    source: Source
    requests: int
    breakdowns: dict[str, Breakdown]
    percentiles_ms: dict[str, dict[str, float]] = field(default_factory=dict)
    trace_rate: int = 1

    def basis(self) -> str:
        """Say in a few words what it rests on.

        >>> Attribution("traces", 700, {}, trace_rate=4).basis()
        'the traces of 1 request in 4'
        """
        if self.source == "statistics":
            return "the server's statistics"
        return "the server's traces" if self.trace_rate == 1 else f"the traces of 1 request in {self.trace_rate}"


@dataclass(frozen=True)
class Answer:
    """One request that succeeded.

    Attributes:
        latency_ms: what the client waited for it.
        at_s: when its answer came, in seconds of `time.monotonic`.
        own_ms: milliseconds by the client's own stages; they are part of the latency.
    """

    latency_ms: float
    at_s: float
    own_ms: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Requests:
    """Many requests and their parts, in milliseconds.

    Attributes:
        total_ms: float64 [n], by the client's clock.
        network_ms: float64 [n].
        overhead_ms: float64 [n].
        stages_ms: float64 [n, len(STAGES), len(PARTS)].
        client_ms: float64 [n] by each of the client's own stages.
        at_s: float64 [n], when the answer came, in seconds of `time.monotonic`.
    """

    total_ms: npt.NDArray[np.float64]
    network_ms: npt.NDArray[np.float64]
    overhead_ms: npt.NDArray[np.float64]
    stages_ms: npt.NDArray[np.float64]
    client_ms: dict[str, npt.NDArray[np.float64]]
    at_s: npt.NDArray[np.float64]

    @classmethod
    def join(cls, traced: Iterable[TracedRequest], answers: Mapping[str, Answer]) -> Requests:
        """Join the requests that both sides know, by id; what the server did not see is network and client.

        A request that was sent again has several traces: the last one begun is that of its answer.

        Args:
            traced: as the server saw them.
            answers: by id; all of them with the same stages of the client.
        """
        last = {request.request_id: request for request in sorted(traced, key=lambda request: request.began_ns)}
        both = [(request, answers[request_id]) for request_id, request in last.items() if request_id in answers]
        total = np.array([answer.latency_ms for _, answer in both], dtype=np.float64)
        server = np.array([request.server_ms for request, _ in both], dtype=np.float64)
        overhead = np.array([request.overhead_ms for request, _ in both], dtype=np.float64)
        stages = [[[request.stages[stage.name][part] for part in PARTS] for stage in STAGES] for request, _ in both]
        shaped = np.array(stages, dtype=np.float64).reshape(len(both), len(STAGES), len(PARTS))
        own = {
            name: np.array([answer.own_ms[name] for _, answer in both], dtype=np.float64)
            for name in (both[0][1].own_ms if both else ())
        }
        network = total - server - sum(own.values(), np.zeros(len(both)))
        at_s = np.array([answer.at_s for _, answer in both], dtype=np.float64)
        return cls(total, network, overhead, shaped, own, at_s)

    def __add__(self, others: Requests) -> Requests:
        """Return these and others, which have the same stages of the client."""
        if not (len(self) and len(others)):
            return self if len(self) else others
        return Requests(
            np.concatenate([self.total_ms, others.total_ms]),
            np.concatenate([self.network_ms, others.network_ms]),
            np.concatenate([self.overhead_ms, others.overhead_ms]),
            np.concatenate([self.stages_ms, others.stages_ms]),
            {name: np.concatenate([values, others.client_ms[name]]) for name, values in self.client_ms.items()},
            np.concatenate([self.at_s, others.at_s]),
        )

    def __getitem__(self, rows: slice) -> Requests:
        """Return some of them."""
        own = {name: values[rows] for name, values in self.client_ms.items()}
        return Requests(
            self.total_ms[rows],
            self.network_ms[rows],
            self.overhead_ms[rows],
            self.stages_ms[rows],
            own,
            self.at_s[rows],
        )

    def __len__(self) -> int:
        return len(self.total_ms)

    def columns(self) -> dict[str, npt.NDArray[np.float64]]:
        """Return float64 [n] by owner, then by `stage part`."""
        owners = {stage.name: self.stages_ms[:, i].sum(axis=1) for i, stage in enumerate(STAGES)}
        parts = {
            f"{stage.name} {part}": self.stages_ms[:, i, j]
            for i, stage in enumerate(STAGES)
            for j, part in enumerate(PARTS)
        }
        return {**owners, OVERHEAD: self.overhead_ms, NETWORK: self.network_ms, **self.client_ms, **parts}

    def breakdown(
        self,
        rows: Sequence[int] | npt.NDArray[np.intp] | slice = slice(None),
        weights: npt.NDArray[np.float64] | None = None,
    ) -> Breakdown:
        """Return the mean over some of the requests, or over all; at least one. With weights, the weighted sum."""
        if weights is None:
            count = len(self.total_ms[rows])
            weights = np.full(count, 1 / count)
        stages = np.tensordot(weights, self.stages_ms[rows], axes=1)
        return Breakdown(
            float(weights @ self.total_ms[rows]),
            float(weights @ self.network_ms[rows]),
            float(weights @ self.overhead_ms[rows]),
            {stage.name: dict(zip(PARTS, map(float, stages[i]), strict=True)) for i, stage in enumerate(STAGES)},
            {name: float(weights @ values[rows]) for name, values in self.client_ms.items()},
        )

    def explain(self, latency_ms: float, percent: float) -> Breakdown:
        """Explain a percentile of the clients' latency by the requests around it.

        Percentiles of parts do not add up to the percentile of their sum. So the requests are ranked by their total,
        and those around the percentile's rank are taken: half of what lies beyond it, on either side, and at most 2.5%
        of all (for p99 those from p98.5 to p99.5). The mean of their totals is longer than the percentile, since the
        tail is. So those below and those above the percentile are averaged by themselves, and mixed as it takes for
        the total to be the percentile: all parts together are then exactly the latency that the clients saw.

        Args:
            latency_ms: the percentile.
            percent: which one.
        """
        ranked = np.argsort(self.total_ms, kind="stable")
        middle = percent / 100 * (len(ranked) - 1)
        half = len(ranked) * min(WIDEST_WINDOW, min(percent, 100 - percent) / 100 / 2)
        rows = ranked[max(0, round(middle - half)) : round(middle + half) + 1]
        totals = self.total_ms[rows]
        is_above = totals > latency_ms
        if is_above.all() or not is_above.any():  # then the one that is nearest explains it
            nearest = rows[[0]] if is_above.all() else rows[[-1]]
            return self.breakdown(nearest, latency_ms / self.total_ms[nearest])
        below_ms, above_ms = totals[~is_above].mean(), totals[is_above].mean()
        share = (latency_ms - below_ms) / (above_ms - below_ms)
        return self.breakdown(rows, np.where(is_above, share / is_above.sum(), (1 - share) / (~is_above).sum()))


def from_requests(requests: Requests, latencies: Histogram) -> Attribution:
    """Return the attribution of requests that were traced; at least one.

    Args:
        requests: those that were traced.
        latencies: of all requests that the clients had an answer to.
    """
    everything = np.full(len(requests), latencies.mean_ms / requests.total_ms.sum())
    percentiles_ms = {f"p{percent}": latencies.percentile_ms(percent) for percent in PERCENTS}
    breakdowns = {
        "mean": requests.breakdown(weights=everything),
        **{at: requests.explain(latency_ms, float(at[1:])) for at, latency_ms in percentiles_ms.items()},
    }
    percentiles = {
        name: {f"p{p}": float(np.percentile(values, p)) for p in PERCENTS}
        for name, values in requests.columns().items()
    }
    return Attribution("traces", len(requests), breakdowns, percentiles)


def from_statistics(window: Window, own_ms: Mapping[str, float] | None = None) -> Attribution:
    """Return the attribution of the mean, from the server's counters.

    The overhead can come out a little below zero, as `Window.ensemble_overhead_ms` says.

    Args:
        window: the load from both sides.
        own_ms: means of the client's own stages, which are part of its latency.

    Raises:
        MeasurementError: a model began to count anew within the window.
    """
    if window.interrupted:
        raise MeasurementError(
            f"{window.interrupted}, so nobody can say where the time went; the clients saw "
            f"{summary_line(window.latencies, window.duration_s)}; measure again"
        )
    counters = {stage.name: window.counters.get(stage.name, Counters()) for stage in STAGES}
    # A stage's total is a little more than its parts; the difference is before the queue, so it counts as queue.
    stages = {
        name: {
            "queue": counter.mean_ms("total") - sum(counter.mean_ms(part) for part in PARTS[1:]),
            **{part: counter.mean_ms(part) for part in PARTS[1:]},
        }
        for name, counter in counters.items()
    }
    own = dict(own_ms or {})
    network_ms = window.network_and_client_ms - sum(own.values())
    mean = Breakdown(window.latencies.mean_ms, network_ms, window.ensemble_overhead_ms, stages, own)
    return Attribution("statistics", window.latencies.count, {"mean": mean})


def owner_sentence(breakdown: Breakdown, at: str) -> str:
    """Say who has most of a latency, and for what, in one sentence; `at` names the latency, such as `mean` or `p95`."""
    owners = breakdown.owners()
    name = max(owners, key=lambda owner: owners[owner])
    share = owners[name] / breakdown.total_ms if breakdown.total_ms else 0.0
    sentence = f"{name} owns {share:.0%} of the {at}"
    if name not in breakdown.stages:
        return f"{sentence}: {owners[name]:.1f} of {breakdown.total_ms:.1f} ms"
    parts = breakdown.stages[name]
    return f"{sentence}: {parts['infer']:.1f} ms in the model, {parts['queue']:.1f} ms waiting for a free instance"


@dataclass(frozen=True)
class Headroom:
    """What a latency leaves of a budget.

    Attributes:
        budget_ms: what an answer may take.
        latency_ms: what it takes, at the percentile that counts.
    """

    budget_ms: float
    latency_ms: float

    @property
    def ms(self) -> float:
        """Milliseconds to spare; below zero, what is too much."""
        return self.budget_ms - self.latency_ms

    @property
    def frames_per_s(self) -> float:
        """Frames a second to spare for one camera that waits for each answer, over one frame a budget."""
        return 1000 / self.latency_ms - 1000 / self.budget_ms if self.latency_ms else 0.0

    def sentence(self, at: str) -> str:
        """Say both in one sentence; `at` names the latency."""
        if self.ms >= 0:
            return (
                f"within the budget of {self.budget_ms:g} ms at {at}, {self.ms:.1f} ms to spare: one camera that waits "
                f"for each answer could send {self.frames_per_s:.1f} frames/s more than {1000 / self.budget_ms:.1f}"
            )
        return (
            f"over the budget of {self.budget_ms:g} ms at {at} by {-self.ms:.1f} ms: one camera that waits for each "
            f"answer gets {-self.frames_per_s:.1f} frames/s less than {1000 / self.budget_ms:.1f}"
        )
