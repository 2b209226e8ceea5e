"""What a load test measured, without a server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from triptych.contract import DETECTION, STAGES
from triptych.measure.run_file import Environment, Run
from triptych.measure.traces import PARTS, TracedRequest
from triptych.measure.window import Window
from triptych.wire.statistics import Counters
from triptych_loadtest.load_test import LoadTest
from triptych_loadtest.recorder import Recorder
from triptych_loadtest.result import Measured, build_run

NS_PER_MS = 1_000_000

MakeRun = Callable[..., tuple[Run, Window]]


def counters(requests: int, total_ms: float) -> Counters:
    total_ns = int(requests * total_ms * NS_PER_MS)
    return Counters(requests=requests, inferences=requests, executions=requests, total_ns=total_ns, infer_ns=total_ns)


def traced(request_id: str) -> TracedRequest:
    stages = {stage.name: dict.fromkeys(PARTS, 0.25) for stage in STAGES}
    return TracedRequest(request_id, server_ms=4.0, stages=stages, overhead_ms=1.0)


@pytest.fixture
def make_run() -> MakeRun:
    """Build a run of requests with these latencies; the server takes 1 ms in each stage, and 1 ms around them."""

    def make(
        latencies_ms: Sequence[float] = (10.0, 20.0, 30.0),
        failures: int = 0,
        *,
        test: LoadTest | None = None,
        with_traces: bool = True,
        names: Sequence[str] = ("detect",),
    ) -> tuple[Run, Window]:
        recorder = Recorder()
        for number, latency_ms in enumerate(latencies_ms):
            recorder(names[number % len(names)], latency_ms, None, {"request_id": str(number)})
        for _ in range(failures):
            recorder("detect", 1.0, ValueError("it was refused"), {"request_id": ""})
        recorder.cpu_s = {"host:1": 1.0, "host:2": 0.5}
        count = len(latencies_ms)
        snapshot = {stage.name: counters(count, 1.0) for stage in STAGES} | {DETECTION.name: counters(count, 4.0)}
        window = Window(list(latencies_ms), 2.0, snapshot)
        measured = Measured(
            recorder.last_s - 2, window, recorder, [traced(str(n)) for n in range(count)] if with_traces else []
        )
        environment = Environment("127.0.0.1:8001", "a CPU", 2, [], {"python": "3.11"})
        test = test or LoadTest(Path("DIR"), duration_s=2, intervals=2)
        return build_run(test, [b"one", b"two"], environment, measured, ["triptych", "loadtest"]), window

    return make
