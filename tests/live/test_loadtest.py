"""`python loadtest` as a process against the real server."""

from __future__ import annotations

import json
import re
import time

import jsonschema
import pytest

from support import RUN_SCHEMA
from triptych.measure import run_file
from triptych.measure.traces import PARTS, Tracing

pytestmark = pytest.mark.triton


def figures(stdout: str, row: str) -> list[float]:
    (line,) = [line for line in stdout.splitlines() if line.startswith(f"│ {row} ")]
    return [float(number) for number in re.findall(r"-?\d+\.\d+", line)]


OWNERS = ["preprocess", "detector", "postprocess", "ensemble overhead", "network and client"]


def test_the_parts_are_the_client_s_mean(demo_server, demo_repository, images, loadtest, tmp_path):
    out = tmp_path / "run.json"
    done = loadtest(
        *("--address", demo_server.grpc_address, "--images", images, "--users", 3, "--warmup", 1, "--duration", 3),
        *("--out", out, "--budget-ms", 1000, "--model-repository", demo_repository),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    jsonschema.validate(json.loads(out.read_text()), RUN_SCHEMA)
    assert "<svg" in out.with_suffix(".html").read_text(), "its page is beside it"
    run = run_file.read(out)
    count = int(re.search(r"(\d+) requests in", done.stdout)[1])
    assert count > 5
    # Each side counted exactly the window: not one request of the warm-up, and all of the measurement.
    assert {counters.requests for counters in run.server.values()} == {count}
    assert run.client.latencies.count == run.attribution.requests == count
    assert sum(size * times for size, times in run.server["detector"].batches.items()) == count
    # The client's mean is exact in its histogram, and comes from another place than the parts.
    assert run.attribution.source == "traces"
    mean = run.attribution.breakdowns["mean"]
    assert sum(mean.owners().values()) == pytest.approx(run.client.latencies.mean_ms, rel=0.02)
    # The server's counters, which are not made from its traces, say the same of what is within a stage.
    for stage, parts in mean.stages.items():
        assert parts["infer"] == pytest.approx(run.server[stage].mean_ms("infer"), rel=0.1, abs=0.3)
    for column, at in enumerate(("mean", "p50", "p95", "p99")):
        shown = [figures(done.stdout, owner)[column] for owner in OWNERS]
        assert sum(shown) == pytest.approx(figures(done.stdout, "client, end to end")[column], abs=0.05), at
        assert all(part >= 0 for part in shown)
    assert "detector owns" in done.stdout
    assert "within the budget of 1000 ms at p95" in done.stdout
    assert run.environment.versions["triton"] == "2.51.0"
    assert run.environment.detector.manifest["target"] == "openvino"
    assert run.workload.images.count == 3


def test_without_traces_there_are_means_and_it_says_so(demo_server, images, loadtest, tmp_path):
    done = loadtest(
        *("--address", demo_server.grpc_address, "--images", images, "--users", 2, "--warmup", 0.5, "--duration", 1.5),
        *("--no-traces", "--out", tmp_path / "run.json"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Means only, from the server's statistics" in done.stdout
    parts = [figures(done.stdout, row)[-1] for row in OWNERS]
    (mean,) = figures(done.stdout, "client, end to end")
    assert sum(parts) == pytest.approx(mean, rel=0.02)
    found = run_file.read(tmp_path / "run.json").attribution
    assert (found.source, list(found.breakdowns), found.percentiles_ms) == ("statistics", ["mean"], {})
    assert sum(found.breakdowns["mean"].owners().values()) == pytest.approx(mean, rel=0.02)


@pytest.mark.slow
def test_several_processes_are_added_up(demo_server, images, loadtest, tmp_path):
    done = loadtest(
        *("--address", demo_server.grpc_address, "--images", images, "--warmup", 0.5, "--duration", 3),
        *("--rate", 8, "--poisson", "--processes", 2, "--out", tmp_path / "run.json"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    run = run_file.read(tmp_path / "run.json")
    assert run.client.latencies.count == run.server["detection"].requests == run.attribution.requests
    assert 8 <= run.client.latencies.count <= 50, "24 on average"
    assert (run.workload.loop, run.workload.processes) == ("poisson", 2)


def test_broken_limits_are_sentences_and_an_exit_code(demo_server, images, loadtest):
    done = loadtest(
        *("--address", demo_server.grpc_address, "--images", images, "--users", 1, "--warmup", 0.3, "--duration", 0.7),
        *("--max-p95-ms", 0.5, "--max-p99-ms", 60000, "--min-rate", 100000, "--budget-ms", 1),
    )
    assert done.returncode == 1
    broken = [line for line in done.stdout.splitlines() if line.startswith("limit broken:")]
    assert len(broken) == 3
    assert re.fullmatch(r"limit broken: p95 is \d+\.\d ms; 0\.5 are allowed", broken[0])
    assert "against the budget" in broken[1]
    assert "100000 are wanted" in broken[2]


def test_refused_images_are_failures_with_their_reason(demo_server, tmp_path, loadtest):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "bad.jpg").write_bytes(b"not an image at all")
    done = loadtest(
        *("--address", demo_server.grpc_address, "--images", tmp_path / "images", "--users", 1),
        *("--warmup", 0.2, "--duration", 0.5, "--out", tmp_path / "run.json"),
    )
    assert done.returncode == 1
    assert "failed: ImageError" in done.stdout
    assert "no request succeeded" in done.stdout
    run = run_file.read(tmp_path / "run.json")
    assert list(run.client.failures) == ["ImageError"]
    assert run.client.failures["ImageError"].count == run.client.failed > 0


def test_traces_are_there_while_they_are_asked_for_and_the_server_is_left_as_it_was(demo_server, images):
    from triptych import DetectionClient

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


def test_stopped_amid_a_load_it_leaves_the_server_as_it_was(demo_server, images, start, tmp_path):
    out = tmp_path / "run.json"
    with Tracing(demo_server.grpc_address) as tracing:
        before = tracing._set({})
        with start(
            *("--address", demo_server.grpc_address, "--images", images, "--warmup", 0.3, "--duration", 60),
            *("--out", out),
        ) as process:
            while tracing._set({}) == before:  # it has begun to measure
                assert process.poll() is None
                time.sleep(0.05)
            process.terminate()
            _, stderr = process.communicate(timeout=30)
        assert process.returncode == 130
        assert "Traceback" not in stderr
        assert tracing._set({}) == before
    assert not out.exists()


@pytest.mark.parametrize("arguments", [("--poisson",), ("--users", 0), ("--processes", 0), ("--rate", -1)])
def test_options_that_make_no_sense_are_one_sentence(images, loadtest, arguments):
    done = loadtest("--images", images, *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_nobody_at_the_address_is_one_sentence(images, loadtest):
    done = loadtest("--address", "127.0.0.1:9", "--images", images, "--duration", 1, "--warmup", 0.1)
    assert done.returncode == 1
    assert "no server answers at 127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_empty_directory_is_one_sentence(tmp_path, loadtest):
    done = loadtest("--images", tmp_path)
    assert done.returncode == 1
    assert f"no images in {tmp_path}" in done.stderr
