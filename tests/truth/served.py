"""What a load test sees of a virtual server: traces and counters as Triton writes them, and the run made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tritonclient.grpc import service_pb2

from triptych.contract import DETECTION, DETECTOR, POSTPROCESS, PREPROCESS
from triptych.measure import traces
from triptych.measure.run_file import Environment, Run, ServedDetector
from triptych.measure.window import Window
from triptych.wire.statistics import parse_statistics
from triptych_loadtest import recorder as recorders
from triptych_loadtest.load_test import LoadTest, Phase
from triptych_loadtest.loops import FrameDropped, RequestUnsent
from triptych_loadtest.recorder import Recorder, Report
from triptych_loadtest.result import Measured, build_run
from truth.server import (
    INPUT_SHARE,
    NETWORK_MS,
    OUTPUT_SHARE,
    OVERHEAD_MS,
    POSTPROCESS_MS,
    PREPROCESS_MS,
    Request,
    Sent,
    Service,
    VirtualServer,
    send,
)

STARTED = datetime(2026, 1, 2, tzinfo=timezone.utc)
IMAGES = [b"one", b"two"]
ENVIRONMENT = Environment("127.0.0.1:8001", "virtual", 2, [], {"triton": "2.51.0"}, ServedDetector(1, "python", 1, 16))

PARTS = ("queue", "compute_input", "compute_infer", "compute_output")
BOUNDARIES = (
    "REQUEST_START",
    "QUEUE_START",
    "COMPUTE_START",
    "COMPUTE_INPUT_END",
    "COMPUTE_OUTPUT_START",
    "COMPUTE_END",
)


@dataclass(frozen=True)
class Seen:
    """A load test of a virtual server.

    Attributes:
        run: what our code makes of it.
        sent: what truly became of every request in the measured time.
    """

    run: Run
    sent: Sent

    @property
    def good(self) -> list[Request]:
        """The requests that succeeded."""
        return [request for request in self.sent.requests if not request.failure]


def load(**how: Any) -> LoadTest:
    """Return a load, 20 s of it after 2 s of warm-up if nothing else is said."""
    return LoadTest(Path("DIR"), **{"duration_s": 20.0, "warmup_s": 2.0, **how})


def measure(server: VirtualServer, test: LoadTest, seed: int, *, has_traces: bool = True) -> Seen:
    """Measure a virtual server as a load test does: a warm-up, and a window between two readings of the counters."""
    service = Service(server, seed)
    warm_up = send(server, service, test, 0.0, test.warmup_s, seed)
    began_s = max([test.warmup_s, *(request.done_s for request in warm_up.requests)]) + 0.1
    sent = send(server, service, test, began_s, test.duration_s, seed + 1_000_000)
    recorder = Recorder(test, Phase(began_s, began_s + test.duration_s), traced=has_traces)
    recorder.take(1, _report(sent))
    if has_traces:
        recorder.trace(traces.join(traces.parse(trace_file(sent.requests))))
    is_restarted = server.restart_s is not None and server.restart_s >= began_s
    since = [] if is_restarted else warm_up.requests
    since = since + [one for one in sent.requests if not is_restarted or one.done_s >= (server.restart_s or 0.0)]
    before, after = (parse_statistics(statistics(requests)) for requests in (warm_up.requests, since))
    window = Window.between(before, after, recorder.all_latencies, recorder.last_s - began_s)
    measured = Measured(STARTED + timedelta(seconds=began_s), window, recorder)
    return Seen(build_run(test, IMAGES, ENVIRONMENT, measured, ["triptych", "loadtest"]), sent)


def _report(sent: Sent) -> Report:
    """Have the load test's listener see each request end, on the virtual clock."""
    with pytest.MonkeyPatch.context() as patch:
        clock = SimpleNamespace(now_s=0.0)
        patch.setattr(recorders, "time", SimpleNamespace(monotonic=lambda: clock.now_s))
        report = Report()
        for request in sorted(sent.requests, key=lambda request: request.done_s):
            clock.now_s = request.done_s
            error = type(request.failure, (Exception,), {})("planted") if request.failure else None
            context = {"request_id": identity(request), "late_ms": request.late_ms, "truncated": False}
            report("detect", request.latency_ms, error, context)
        for _ in range(sent.dropped):
            report("frame", 0.0, FrameDropped("planted"), {})
        for _ in range(sent.unsent):
            report("unsent", 0.0, RequestUnsent("planted"), {})
    return report


def identity(request: Request) -> str:
    """Return the id that a request carries."""
    return f"{request.user}-{request.sent_s:.9f}"


def parts_ms(request: Request) -> dict[str, dict[str, float]]:
    """Return a request's true milliseconds by stage and part."""
    detector = {
        "queue": request.queue_ms,
        "input": INPUT_SHARE * request.service_ms,
        "infer": (1 - INPUT_SHARE - OUTPUT_SHARE) * request.service_ms,
        "output": OUTPUT_SHARE * request.service_ms,
    }
    return {PREPROCESS.name: PREPROCESS_MS, DETECTOR.name: detector, POSTPROCESS.name: POSTPROCESS_MS}


def statistics(requests: Sequence[Request]) -> service_pb2.ModelStatisticsResponse:
    """Return Triton's counters after these requests."""
    response = service_pb2.ModelStatisticsResponse()
    sums = {name: dict.fromkeys(parts, 0.0) for name, parts in parts_ms(Request(0, 0, 0)).items()}
    requests = [request for request in requests if not request.failure]
    for request in requests:
        for name, parts in parts_ms(request).items():
            for part, milliseconds in parts.items():
                sums[name][part] += milliseconds
    whole_ms = sum(sum(parts.values()) for parts in sums.values()) + OVERHEAD_MS * len(requests)
    for name, parts in {**sums, DETECTION.name: {}}.items():
        model = response.model_stats.add(name=name, version="1")
        model.inference_count = model.execution_count = len(requests)
        stats = model.inference_stats
        stats.success.count = len(requests)
        stats.success.ns = round((sum(parts.values()) if parts else whole_ms) * 1e6)
        for field, milliseconds in zip(PARTS, parts.values(), strict=False):
            getattr(stats, field).count, getattr(stats, field).ns = len(requests), round(milliseconds * 1e6)
    return response


def trace_file(requests: Sequence[Request]) -> str:
    """Return what Triton would write of these requests: compact, and every model's part on its own."""
    lines: list[str] = []
    for number, request in enumerate(requests):
        first = 4 * number + 1
        at_ms = request.sent_s * 1000 + NETWORK_MS / 2
        begun = {"REQUEST_START": at_ms}
        at_ms += OVERHEAD_MS / 2
        if request.failure:
            lines += _trace(first, DETECTION.name, None, identity(request), begun)
            continue
        for place, (name, parts) in enumerate(parts_ms(request).items(), start=1):
            queue_end = at_ms + parts["queue"]
            input_end = queue_end + parts["input"]
            infer_end = input_end + parts["infer"]
            stamps = (at_ms, at_ms, queue_end, input_end, infer_end, infer_end + parts["output"])
            lines += _trace(first + place, name, first, identity(request), dict(zip(BOUNDARIES, stamps, strict=True)))
            at_ms = stamps[-1]
        done_ms = at_ms + OVERHEAD_MS / 2
        lines += _trace(first, DETECTION.name, None, identity(request), {**begun, "INFER_RESPONSE_COMPLETE": done_ms})
    return f"[{','.join(lines)}]"


def _trace(number: int, model: str, parent: int | None, request_id: str, at_ms: dict[str, float]) -> list[str]:
    head = f'{{"id":{number},"model_name":"{model}","model_version":1,"request_id":"{request_id}"'
    head += f',"parent_id":{parent}}}' if parent else "}"
    stamp = '{{"id":{},"timestamps":[{{"name":"{}","ns":{}}}]}}'
    return [head, *(stamp.format(number, name, round(ms * 1e6)) for name, ms in at_ms.items())]


@lru_cache
def true_latencies_ms(server: VirtualServer, test: LoadTest, seconds: float = 5_000.0) -> npt.NDArray[np.float64]:
    """Return what requests take in the long run, sorted, by a simulation of its own."""
    sent = send(server, Service(server, 4711), replace(test, duration_s=seconds), 0.0, seconds, 4711)
    return np.sort([request.latency_ms for request in sent.requests if not request.failure])
