"""MLCommons' own LoadGen with our client: what MLPerf would measure, as a check of `triptych loadtest --scenario`."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlperf_loadgen

from triptych import DetectionClient
from triptych.errors import TriptychError
from triptych.measure.scenario import RULES, ScenarioName

MOST_IN_FLIGHT = 256
"""Queries of the server scenario that may be under way at once."""

SCENARIOS = {
    "single-stream": mlperf_loadgen.TestScenario.SingleStream,
    "multi-stream": mlperf_loadgen.TestScenario.MultiStream,
    "server": mlperf_loadgen.TestScenario.Server,
    "offline": mlperf_loadgen.TestScenario.Offline,
}


@dataclass(frozen=True)
class LoadGen:
    """LoadGen against one server.

    Attributes:
        address: the server's, host:port.
        images: encoded; LoadGen draws them at random.
        users: threads that send the images of the offline scenario.
    """

    address: str
    images: Sequence[bytes]
    users: int = 4

    def run(self, name: ScenarioName, seconds: float, per_s: float = 0.0, budget_ms: float = 0.0) -> dict[str, Any]:
        """Run a scenario, and return what LoadGen's log says of it by its own keys, and how many queries `failed`.

        LoadGen knows no failure, and would wait for ever: a query that fails is completed, and counts as `failed`.

        Args:
            name: which.
            seconds: how long, at least.
            per_s: queries a second of server; of offline, what is expected, so that it takes about so long.
            budget_ms: the bound of server.
        """
        threads = {"server": MOST_IN_FLIGHT, "offline": self.users}.get(name, 1)
        with (
            tempfile.TemporaryDirectory(prefix="triptych-loadgen-") as logs,
            DetectionClient(self.address, retries=0) as client,
            ThreadPoolExecutor(threads) as pool,
        ):
            client.detect(self.images[0])  # connects
            failed: list[TriptychError] = []

            def answer(samples: Sequence[Any]) -> None:
                images = [self.images[sample.index] for sample in samples]
                try:
                    if len(images) == 1:
                        client.detect(images[0])
                    else:
                        client.detect_batch(images)
                except TriptychError as error:
                    failed.append(error)
                mlperf_loadgen.QuerySamplesComplete(
                    [mlperf_loadgen.QuerySampleResponse(sample.id, 0, 0) for sample in samples]
                )

            def issue(samples: Sequence[Any]) -> None:
                if threads == 1:
                    answer(samples)
                    return
                for sample in samples:
                    pool.submit(answer, [sample])

            self._start(issue, _settings(name, seconds, per_s, budget_ms), Path(logs))
            return {**_read(Path(logs) / "mlperf_log_detail.txt"), "failed": len(failed)}

    def _start(self, issue: Any, settings: Any, logs: Path) -> None:
        sut = mlperf_loadgen.ConstructSUT(issue, lambda: None)
        count = len(self.images)
        qsl = mlperf_loadgen.ConstructQSL(count, count, lambda _samples: None, lambda _samples: None)
        log = mlperf_loadgen.LogSettings()
        log.log_output.outdir = str(logs)
        log.enable_trace = False
        try:
            mlperf_loadgen.StartTestWithLogSettings(sut, qsl, settings, log)
        finally:
            mlperf_loadgen.DestroyQSL(qsl)
            mlperf_loadgen.DestroySUT(sut)


def _settings(name: ScenarioName, seconds: float, per_s: float, budget_ms: float) -> Any:
    settings = mlperf_loadgen.TestSettings()
    settings.scenario = SCENARIOS[name]
    settings.mode = mlperf_loadgen.TestMode.PerformanceOnly
    settings.min_duration_ms = round(1000 * seconds)
    settings.min_query_count = 1
    # A query is expected to take a millisecond at least, so that LoadGen makes enough of them beforehand.
    settings.single_stream_expected_latency_ns = settings.multi_stream_expected_latency_ns = 1_000_000
    settings.multi_stream_samples_per_query = RULES["multi-stream"].samples_per_query
    if name == "server":
        settings.server_target_qps, settings.server_target_latency_ns = per_s, round(1e6 * budget_ms)
    if name == "offline":
        settings.offline_expected_qps = per_s / 1.1  # it makes a tenth more
    return settings


def _read(log: Path) -> dict[str, Any]:
    entries = (json.loads(line.removeprefix(":::MLLOG ")) for line in log.read_text().splitlines())
    return {entry["key"]: entry["value"] for entry in entries}
