"""The server's counters of requests and time, by model.

Triton's counters only grow. The difference of two snapshots is what happened between them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from tritonclient.grpc import service_pb2

NS_PER_MS = 1e6


@dataclass(frozen=True)
class Counters:
    """The counters of one model, over all its versions. Times are sums over requests, in nanoseconds.

    Attributes:
        requests: requests that succeeded.
        failures: requests that failed.
        inferences: images; each image of a batch counts.
        executions: calls of the model; inferences divided by executions is the mean batch.
        total_ns: from a request's arrival to its response.
        queue_ns: waiting for a free instance.
        input_ns: gathering the inputs.
        infer_ns: in the model.
        output_ns: passing on the outputs.
        batches: executions by their number of images.
        versions: the versions of the model that are loaded, which these counters are of.
    """

    requests: int = 0
    failures: int = 0
    inferences: int = 0
    executions: int = 0
    total_ns: int = 0
    queue_ns: int = 0
    input_ns: int = 0
    infer_ns: int = 0
    output_ns: int = 0
    batches: Counter[int] = field(default_factory=Counter)
    versions: list[str] = field(default_factory=list)

    def __add__(self, other: Counters) -> Counters:
        versions = sorted({*self.versions, *other.versions})
        return Counters(versions=versions, **{name: getattr(self, name) + getattr(other, name) for name in _SUMS})

    def __sub__(self, other: Counters) -> Counters:
        return Counters(versions=self.versions, **{name: getattr(self, name) - getattr(other, name) for name in _SUMS})

    @property
    def mean_batch(self) -> float:
        """Mean number of images in an execution; 0 if there was none."""
        return self.inferences / self.executions if self.executions else 0.0

    def mean_ms(self, part: str) -> float:
        """Return the mean of one time (`total`, `queue`, `input`, `infer`, `output`) per request, in milliseconds."""
        total: int = getattr(self, f"{part}_ns")
        return total / self.requests / NS_PER_MS if self.requests else 0.0


_SUMS = [each.name for each in fields(Counters) if each.name != "versions"]

Snapshot = Mapping[str, Counters]


def parse_statistics(response: service_pb2.ModelStatisticsResponse) -> Snapshot:
    """Return the counters by the model's name."""
    snapshot: dict[str, Counters] = {}
    for model in response.model_stats:
        stats = model.inference_stats
        counters = Counters(
            requests=stats.success.count,
            failures=stats.fail.count,
            inferences=model.inference_count,
            executions=model.execution_count,
            total_ns=stats.success.ns,
            queue_ns=stats.queue.ns,
            input_ns=stats.compute_input.ns,
            infer_ns=stats.compute_infer.ns,
            output_ns=stats.compute_output.ns,
            batches=Counter({batch.batch_size: batch.compute_infer.count for batch in model.batch_stats}),
            versions=[model.version],
        )
        snapshot[model.name] = snapshot.get(model.name, Counters()) + counters
    return snapshot
