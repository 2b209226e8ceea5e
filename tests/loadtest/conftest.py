"""What a load test measured, without a server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path

import pytest

from triptych.contract import DETECTION, STAGES
from triptych.measure.run_file import Environment, Run
from triptych.measure.traces import PARTS, TracedRequest
from triptych.measure.window import Window
from triptych.wire.statistics import Counters
from triptych_loadtest.load_test import LoadTest, Phase
from triptych_loadtest.recorder import Answered, Recorder, Report
from triptych_loadtest.result import Measured, build_run

NS_PER_MS = 1_000_000

MakeRun = Callable[..., Run]


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
        late_ms: float = 0.0,
        unsent: int = 0,
    ) -> Run:
        test = test or LoadTest(Path("DIR"), duration_s=2, intervals=2)
        recorder = Recorder(test, Phase(100.0, 102.0), traced=with_traces)
        answers = [
            Answered(names[number % len(names)], str(number), latency_ms, late_ms, 100.5)
            for number, latency_ms in enumerate(latencies_ms)
        ]
        refused = [("ValueError", "it was refused", 102.0)] * failures
        recorder.take(0, Report(answers, refused, unsent, cpu_s=1.0))
        recorder.take(1, Report(cpu_s=0.5))
        count = len(latencies_ms)
        snapshot = {stage.name: counters(count, 1.0) for stage in STAGES} | {DETECTION.name: counters(count, 4.0)}
        window = Window(recorder.all_latencies, 2.0, snapshot)
        if with_traces:
            recorder.trace([traced(str(number)) for number in range(count)])
        measured = Measured(datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc), window, recorder)
        environment = Environment("127.0.0.1:8001", "a CPU", 2, [], {"python": "3.11"})
        return build_run(test, [b"one", b"two"], environment, measured, ["triptych", "loadtest"])

    return make
