"""`python loadtest` as a process against the real server."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest

from support import RUN_SCHEMA
from support.endpoint import Endpoint
from support.types import Loadtest, Start
from triptych import DetectionClient
from triptych.cli.console import INTERRUPTED, REFUSED, SERVER_DEAD
from triptych.measure import run_file, traces
from triptych.measure.traces import PARTS, Tracing
from triptych.serving.server import TritonServer

pytestmark = pytest.mark.triton


def figures(stdout: str, row: str) -> list[float]:
    (line,) = [line for line in stdout.splitlines() if line.startswith(f"│ {row} ")]
    return [float(number) for number in re.findall(r"-?\d+\.\d+", line)]


OWNERS = ["preprocess", "detector", "postprocess", "ensemble overhead", "network and client"]


def test_the_parts_are_the_client_s_mean(
    demo_server: TritonServer, demo_repository: Path, images: Path, loadtest: Loadtest, tmp_path: Path
) -> None:
    out = tmp_path / "run.json"
    done = loadtest(
        # So many images a request that fewer come a second, on any machine, than are all traced.
        *("--address", demo_server.grpc_address, "--images", images, "--users", 2, "--batch", 8, "--warmup-s", 0.5),
        *("--duration-s", 2, "--out", out, "--budget-ms", 60000, "--model-repository", demo_repository),
    )
    if done.returncode:  # a slow machine answers too few requests for a p95
        assert done.returncode == REFUSED, done.stdout + done.stderr
        assert "refused: p95, against the budget, is" in done.stdout
        assert "too few requests to bound the p95" in done.stdout
    jsonschema.validate(json.loads(out.read_text()), RUN_SCHEMA)
    assert "<svg" in out.with_suffix(".html").read_text(), "its page is next to it"
    run = run_file.read(out)
    match = re.search(r"(\d+) requests in", done.stdout)
    assert match
    count = int(match[1])
    assert count >= 3, "what is in flight at the end is waited for"
    # Each side counted exactly the window: not one request of the warm-up, and all of the measurement.
    assert {counters.requests for counters in run.server.values()} == {count}
    assert run.client.latencies.count == run.attribution.requests == count
    assert sum(size * times for size, times in run.server["detector"].batches.items()) == 8 * count
    # The client's mean is exact in its histogram, and comes from another place than the parts.
    assert run.attribution.source == "traces"
    mean = run.attribution.breakdowns["mean"]
    assert sum(mean.owners().values()) == pytest.approx(run.client.latencies.mean_ms, rel=0.02)
    # The server's counters, which are not made from its traces, say the same of what is within a stage.
    for stage, parts in mean.stages.items():
        assert parts["infer"] == pytest.approx(run.server[stage].mean_ms("infer"), rel=0.1, abs=0.3)
    for column, at in enumerate(("mean", "p50", "p90", "p95", "p99")):
        shown = [figures(done.stdout, owner)[column] for owner in OWNERS]
        assert sum(shown) == pytest.approx(figures(done.stdout, "client, end to end")[column], abs=0.05), at
        assert all(part >= 0 for part in shown)
    assert " owns " in done.stdout
    assert "within the budget of 60000 ms at p95" in done.stdout
    assert run.environment.versions["triton"] == "2.51.0"
    assert run.environment.detector
    assert run.environment.detector.manifest
    assert run.environment.detector.manifest["target"] == "openvino"
    assert run.workload.images.count == 3
    assert run.command[:3] == ["triptych", "loadtest", "--address"]


def test_without_traces_there_are_means_and_a_broken_limit_is_an_exit_code(
    demo_server: TritonServer, images: Path, loadtest: Loadtest, tmp_path: Path
) -> None:
    done = loadtest(
        *("--address", demo_server.grpc_address, "--images", images, "--users", 2, "--warmup-s", 0.3),
        *("--duration-s", 0.7, "--no-traces", "--out", tmp_path / "run.json"),
        *("--max-p95-ms", 0.001, "--min-rate", 100000, "--budget-ms", 0.001),
    )
    assert done.returncode == REFUSED, done.stdout + done.stderr
    assert "Means only, from the server's statistics" in done.stdout
    parts = [figures(done.stdout, row)[-1] for row in OWNERS]
    (mean,) = figures(done.stdout, "client, end to end")
    assert sum(parts) == pytest.approx(mean, rel=0.02)
    attribution = run_file.read(tmp_path / "run.json").attribution
    assert (attribution.source, list(attribution.breakdowns), attribution.percentiles_ms) == (
        "statistics",
        ["mean"],
        {},
    )
    assert sum(attribution.breakdowns["mean"].owners().values()) == pytest.approx(mean, rel=0.02)
    broken = [line for line in done.stdout.splitlines() if line.startswith("refused:")]
    assert len(broken) == 3
    assert re.fullmatch(r"refused: p95 is \d+\.\d ms; 0\.001 are allowed", broken[0])
    assert "against the budget" in broken[1]
    assert "100000 are required" in broken[2]


class WithGpu(Endpoint):
    """The metrics of a real server, with a GPU beside them that takes 300 W."""

    def __init__(self, server: TritonServer) -> None:
        super().__init__()
        self._server_url = server.metrics_url

    def page(self) -> str:
        with urllib.request.urlopen(self._server_url, timeout=5) as page:
            text: str = page.read().decode()
        return f'{text}nv_energy_consumption{{gpu_uuid="GPU-1"}} {300 * time.monotonic()}\n'


def test_a_run_has_the_joules_that_the_server_s_metrics_say(
    demo_server: TritonServer, images: Path, loadtest: Loadtest, tmp_path: Path
) -> None:
    with WithGpu(demo_server) as endpoint:
        done = loadtest(
            *("--address", demo_server.grpc_address, "--images", images, "--users", 1, "--warmup-s", 0.3),
            *("--duration-s", 4, "--metrics-url", endpoint.url, "--no-traces", "--out", tmp_path / "run.json"),
        )
    assert done.returncode == 0, done.stdout + done.stderr
    run = run_file.read(tmp_path / "run.json")
    assert run.power
    (gpu,) = run.power.of("GPU")
    assert gpu.energy_j is not None, gpu.unknown
    assert gpu.uncertainty_j is not None
    assert run.power.seconds == run.client.seconds
    assert abs(gpu.energy_j - 300 * run.client.seconds) <= gpu.uncertainty_j
    assert len(gpu.intervals) == len(run.intervals)
    assert "images per joule" in done.stdout


@pytest.mark.slow
def test_several_processes_are_added_up(
    demo_server: TritonServer, images: Path, loadtest: Loadtest, tmp_path: Path
) -> None:
    done = loadtest(
        *("--address", demo_server.grpc_address, "--images", images, "--warmup-s", 0.5, "--duration-s", 3),
        *("--rate", 8, "--poisson", "--processes", 2, "--out", tmp_path / "run.json"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    run = run_file.read(tmp_path / "run.json")
    assert run.client.latencies.count == run.server["detection"].requests == run.attribution.requests
    assert 8 <= run.client.latencies.count <= 50, "24 on average"
    assert (run.workload.loop, run.workload.processes) == ("poisson", 2)


def test_refused_images_are_failures_with_their_reason_and_json_stands_alone(
    demo_server: TritonServer, tmp_path: Path, loadtest: Loadtest
) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "bad.jpg").write_bytes(b"not an image at all")
    done = loadtest(
        *("--address", demo_server.grpc_address, "--images", tmp_path / "images", "--users", 1),
        *("--warmup-s", 0.2, "--duration-s", 0.5, "--json"),
    )
    assert done.returncode == REFUSED
    assert "failed: ImageError" in done.stderr
    assert "no request succeeded" in done.stderr
    run = json.loads(done.stdout)
    assert run.pop("remarks") == []
    jsonschema.validate(run, RUN_SCHEMA)
    assert list(run["client"]["failures"]) == ["ImageError"]
    assert run["client"]["failures"]["ImageError"]["count"] > 0


def test_traces_are_there_while_they_are_asked_for_and_the_server_is_left_as_it_was(
    demo_server: TritonServer, images: Path
) -> None:
    image = (images / "0.jpg").read_bytes()
    with DetectionClient(demo_server.grpc_address) as client, Tracing(demo_server.grpc_address) as tracing:
        before = tracing._set({})
        assert before["trace_level"] == ["OFF"]
        assert tracing.start()
        for _ in range(3):
            client.detect(image)
        traced = tracing.stop(3)
        client.detect(image)
        assert tracing._set({}) == before
        assert tracing.start()
        assert tracing.stop(0) == [], "nothing was asked in between, and what was before is not counted again"
    assert len(traced) == 3
    for request in traced:
        assert all(request.stages[stage][part] >= 0 for stage in request.stages for part in PARTS)
        assert 0 <= request.overhead_ms < request.server_ms


def test_one_request_in_so_many_is_traced(demo_server: TritonServer, images: Path) -> None:
    image = (images / "0.jpg").read_bytes()
    with DetectionClient(demo_server.grpc_address) as client, Tracing(demo_server.grpc_address) as tracing:
        assert tracing.start(rate=3)
        for _ in range(9):
            client.detect(image)
        assert len(tracing.stop(9)) == 3


def test_traces_that_a_killed_load_test_left_on_end(demo_server: TritonServer, images: Path) -> None:
    image = (images / "0.jpg").read_bytes()
    with DetectionClient(demo_server.grpc_address) as client, Tracing(demo_server.grpc_address) as tracing:
        with Tracing(demo_server.grpc_address) as killed:
            before = killed._set({})
            assert killed.start()
            killed._before = {}  # nobody switches it back
        (left,) = map(int, tracing._set({})["trace_count"])
        assert 0 < left <= traces.TRACES_TO_GO, "it ends by itself"
        client.detect(image)
        assert tracing._set({})["trace_count"] == [str(left - 1)]
        assert tracing.start()
        tracing.stop(0)
        assert tracing._set({}) == before


def test_traces_are_read_as_they_come_and_go_on_for_as_long_as_somebody_reads(
    demo_server: TritonServer, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traces, "RENEW_S", 0.3)
    monkeypatch.setattr(traces, "TRACES_TO_GO", 5)
    image = (images / "0.jpg").read_bytes()
    with DetectionClient(demo_server.grpc_address) as client, Tracing(demo_server.grpc_address) as tracing:
        assert tracing.start()
        read = 0
        for number in range(12):
            client.detect(image, request_id=f"r-{number}")
            if number % 3 == 2:
                time.sleep(0.4)
                read += len(tracing.poll())
                assert not tracing.poll(), "there is nothing new"
        assert read >= 6, "before the end"
        assert read + len(tracing.stop(12)) == 12, "more than Triton was told at once"
        assert not list(tracing._files()), "no file is left"


def test_of_two_measurements_at_once_the_second_is_refused(
    demo_server: TritonServer, images: Path, loadtest: Loadtest
) -> None:
    arguments = ("--address", demo_server.grpc_address, "--images", images, "--duration-s", 0.3, "--warmup-s", 0.1)
    with Tracing(demo_server.grpc_address) as tracing:
        assert tracing.start()
        settings = tracing._set({})
        done = loadtest(*arguments)
        assert done.returncode == REFUSED
        assert "another measurement of the server" in done.stderr
        assert done.stderr.count("\n") == 1
        assert tracing._set({}) == settings, "the first one goes on"
    assert loadtest(*arguments).returncode == 0


def test_stopped_amid_a_load_it_leaves_the_server_as_it_was(
    demo_server: TritonServer, images: Path, start: Start, tmp_path: Path
) -> None:
    out = tmp_path / "run.json"
    with Tracing(demo_server.grpc_address) as tracing:
        before = tracing._set({})
        with start(
            *("--address", demo_server.grpc_address, "--images", images, "--warmup-s", 0.3, "--duration-s", 60),
            *("--out", out),
            loadtest=("-m", "triptych", "loadtest"),
        ) as process:
            while tracing._set({}) == before:  # it has begun to measure
                assert process.poll() is None
                time.sleep(0.05)
            process.terminate()
            _, stderr = process.communicate(timeout=30)
        assert process.returncode == INTERRUPTED
        assert "Traceback" not in stderr
        assert tracing._set({}) == before
    assert not out.exists()


def test_nobody_at_the_address_is_one_sentence(images: Path, loadtest: Loadtest) -> None:
    done = loadtest("--address", "127.0.0.1:9", "--images", images, "--duration-s", 1, "--warmup-s", 0.1)
    assert done.returncode == SERVER_DEAD
    assert "no server answers at 127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_empty_directory_is_one_sentence(tmp_path: Path, loadtest: Loadtest) -> None:
    done = loadtest("--images", tmp_path)
    assert done.returncode == REFUSED
    assert f"no images in {tmp_path}" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.fixture
def measure(steady_address: str, images: Path, loadtest: Loadtest, tmp_path: Path) -> Callable[..., run_file.Run]:
    """Run a load test of the steady server, and read its run; a run has failures where frames were dropped."""

    def run(*arguments: object) -> run_file.Run:
        out = tmp_path / "run.json"
        done = loadtest("--address", steady_address, "--images", images, "--out", out, *arguments)
        assert out.exists(), done.stdout + done.stderr
        return run_file.read(out)

    return run


def test_cameras_and_a_rate_reach_the_server(measure: Callable[..., run_file.Run]) -> None:
    camera = measure("--users", 1, "--fps", 100, "--warmup-s", 0.2, "--duration-s", 0.6)
    assert (camera.workload.loop, camera.workload.rate_per_s) == ("camera", 100)
    assert camera.client.latencies.count > 0
    # The detector sleeps longer than two frames last, however fast the machine is.
    assert list(camera.client.failures) == ["FrameDropped"]
    assert camera.client.failed > camera.client.latencies.count
    rate = measure("--rate", 20, "--warmup-s", 0.2, "--duration-s", 0.6)
    assert (rate.workload.loop, rate.workload.users) == ("constant", 0)
    assert rate.client.latencies.count == rate.server["detection"].requests > 0


def test_a_mix_of_sizes_in_batches(measure: Callable[..., run_file.Run]) -> None:
    run = measure("--users", 1, "--warmup-s", 0.2, "--duration-s", 1, "--sizes", "640x480,64x48", "--batch", 2)
    counts = {name: latencies.count for name, latencies in run.client.by_request.items()}
    assert set(counts) == {"detect 640x480 x2", "detect 64x48 x2"}
    assert abs(counts["detect 640x480 x2"] - counts["detect 64x48 x2"]) <= 1, "in random order, but as often"
    assert run.server["detection"].inferences == 2 * run.client.latencies.count
