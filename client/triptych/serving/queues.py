"""How many requests may wait for a stage, and how long: what a server cannot answer in time it refuses at once.

A queue without an end collapses under overload. Every request waits until nobody wants its answer any more, and is
worked on all the same. So the two stages that take time have limits of both kinds. How fast a stage is depends on the
detector and on the images, so the limit of time is the one that always holds. The limit of number refuses at once.

Newer Tritons can also limit how many requests are at a step of the ensemble (`limit_inflight`). That does not refuse,
it makes the step before wait. The image for GPUs has it: `python -m triptych.serving.queues REPOSITORY TRITON_VERSION`.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from triptych.contract import DETECTION, DETECTOR, PREPROCESS
from triptych.files import atomic_write
from triptych.model_config import read_config
from triptych.wire.model_control import processes_of

QUEUED_STAGES = (PREPROCESS, DETECTOR)
"""Both have limits, since either may be the slower one. Postprocess is never: it takes under a millisecond."""

DEFAULT_BUDGET_MS = 4000
"""How long a request may wait in one queue. Two such waits leave time of a client's ten seconds for the work."""

IMAGES_PER_CORE_S = 4
"""How many images a core is counted on to answer in a second; `pcb.onnx` makes 17 of one core of an EPYC.

Where it does, nobody who was let in is refused later: the number of requests is the tighter limit. A larger number
would let more users in, and have each of them, and whoever comes next, wait longer for an answer.
"""


THREADS = ("threads", "intra_op_thread_count")
"""The parameter with the CPU threads of an instance, of the Python backend's detectors and of ONNX Runtime's."""

GPU_IMAGES_S = 128
"""How many images a detector on a GPU is counted on to answer in a second; they make hundreds and thousands."""

INFLIGHT_SINCE = (2, 63)
"""The first Triton that knows `max_inflight_requests`. An older one does not load an ensemble that has it."""

MOST_INFLIGHT = 2 * GPU_IMAGES_S * DEFAULT_BUDGET_MS // 1000
"""At a step: twice the longest queue, so that queues refuse first. Only postprocess has no other limit."""

ONE_BY_ONE = [1]
"""The preferred batch sizes of a stage that gathers no batches."""

FILE_CORES = 2
"""What the number in preprocess's file is meant for."""


def queue_size(cores: int, budget_ms: int = DEFAULT_BUDGET_MS, *, on_gpu: bool = False) -> int:
    """Return how many requests may wait for a stage on so many CPU cores, or on a GPU; a batch is one request."""
    return max(1, (GPU_IMAGES_S if on_gpu else cores * IMAGES_PER_CORE_S) * budget_ms // 1000)


def limit_queue(config: model_config_pb2.ModelConfig, size: int, budget_ms: int = DEFAULT_BUDGET_MS) -> None:
    """Limit the queue of a model. A request may ask for a shorter time, but not for a longer one.

    Triton limits only what passes its dynamic batcher. A model that gathers no batches goes on getting its requests one
    by one: each is as large a batch as is preferred.
    """
    if not config.HasField("dynamic_batching"):
        config.dynamic_batching.preferred_batch_size.extend(ONE_BY_ONE)
    policy = config.dynamic_batching.default_queue_policy
    policy.timeout_action = policy.REJECT
    policy.default_timeout_microseconds = budget_ms * 1000
    policy.allow_timeout_override = True
    policy.max_queue_size = size


def fit_queue(config: model_config_pb2.ModelConfig, cores: int, written_for: int, budget_ms: int | None = None) -> None:
    """Limit the queue of a stage for the machine that serves it; the detector's and preprocess's, no other.

    A detector that uses fewer cores than there are answers fewer requests, so fewer may wait. A detector of one process
    gets all that wait at once: one by one, Triton 2.51 pauses for about 20 ms after each while the queue is full. With
    several processes it would give one of them what another could do meanwhile.

    Without a budget, limits that somebody wrote into the stage's file by hand are left as they are.

    Args:
        config: the configuration it is loaded with, with its instances.
        cores: of the machine.
        written_for: what `cores_of` said of its file.
        budget_ms: how long a request may wait.
    """
    if config.name not in (stage.name for stage in QUEUED_STAGES):
        return
    policy, on_gpu = config.dynamic_batching.default_queue_policy, is_on_gpu(config)
    written = (policy.max_queue_size, policy.default_timeout_microseconds)
    # Whether it is on a GPU may have been decided since its file was written.
    published = [(queue_size(written_for, on_gpu=kind), DEFAULT_BUDGET_MS * 1000) for kind in (False, True)]
    if budget_ms is not None or written in (*published, (0, 0)):
        budget_ms = budget_ms or DEFAULT_BUDGET_MS
        if config.name == DETECTOR.name:
            cores = min(cores, cores_of(config))
            if processes_of(config) == 1 and list(config.dynamic_batching.preferred_batch_size) == ONE_BY_ONE:
                config.dynamic_batching.ClearField("preferred_batch_size")
        limit_queue(config, queue_size(cores, budget_ms, on_gpu=on_gpu), budget_ms)


def is_on_gpu(config: model_config_pb2.ModelConfig) -> bool:
    """Return whether a model runs on a GPU, as its configuration says."""
    return any(group.kind == group.KIND_GPU for group in config.instance_group)


def cores_of(config: model_config_pb2.ModelConfig) -> int:
    """Return the cores that a stage can use, as its configuration says."""
    if config.name == PREPROCESS.name:
        return FILE_CORES
    threads = next((config.parameters[key].string_value for key in THREADS if key in config.parameters), "1")
    instances: int = sum(group.count for group in config.instance_group)
    return instances * int(threads)


def limit_inflight(config: model_config_pb2.ModelConfig, triton: str) -> bool:
    """Limit the requests at each step of the ensemble where a Triton of this version can; return whether it can.

    At first the limit was of the parts of one request, which holds back nothing of ours; since the spring of 2026 it is
    of all requests together.
    """
    version = tuple(map(int, re.findall(r"\d+", triton)[:2]))
    if version < INFLIGHT_SINCE:
        return False
    config.ensemble_scheduling.max_inflight_requests = MOST_INFLIGHT
    return True


if __name__ == "__main__":
    ensemble = Path(sys.argv[1]) / DETECTION.name
    limited = read_config(ensemble)
    if limit_inflight(limited, sys.argv[2]):
        with atomic_write(ensemble / "config.pbtxt") as aside:
            aside.write_text(text_format.MessageToString(limited))
