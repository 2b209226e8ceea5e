"""Percentiles of each stage from the real server's metrics, where no traces are read."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from support.steady import SERVICE_MS, steady_repository
from triptych.measure import run_file
from triptych.serving.server import Ports, TritonServer

pytestmark = pytest.mark.triton


@pytest.fixture(scope="module")
def server(make_repository) -> Iterator[TritonServer]:
    """A server with summaries, whose detector takes 25 ms sharp."""
    repository = steady_repository(make_repository)
    with TritonServer(repository, ports=Ports.free(), log_path=repository.parent / "log", summaries=True) as server:
        yield server


@pytest.fixture
def measure(server, images, loadtest, tmp_path):
    def run(*arguments: object):
        out = tmp_path / "run.json"
        done = loadtest(
            *("--address", server.grpc_address, "--images", images, "--users", 1),
            *("--warmup", 1, "--duration", 3, "--out", out, *arguments),
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout, run_file.read(out)

    return run


def test_without_traces_there_are_summaries(server, measure):
    stdout, run = measure("--no-traces", "--metrics-url", server.metrics_url)
    found = run.attribution
    assert (found.source, list(found.breakdowns)) == ("summaries", ["mean"])
    assert SERVICE_MS <= found.percentiles_ms["detector infer"]["p50"] < 2 * SERVICE_MS, "a sleep may end late"
    for name, values in found.percentiles_ms.items():
        assert 0 <= values["p50"] <= values["p95"] <= values["p99"], name
    # The server's counters, another account of the same requests, say the same of what varies by little.
    assert found.percentiles_ms["detector"]["p50"] == pytest.approx(run.server["detector"].mean_ms("total"), rel=0.5)
    assert found.percentiles_ms["postprocess infer"]["p50"] < 20

    assert "from the summaries in the server's metrics" in stdout
    assert "they do not add up" in stdout
    table = stdout[stdout.index("Percentiles of each stage for itself") :]
    (row,) = re.findall(r"│ detector +│ +([\d.]+) │ +([\d.]+) │ +([\d.]+) │", table)
    assert [float(figure) for figure in row] == pytest.approx(
        [found.percentiles_ms["detector"][at] for at in ("p50", "p95", "p99")], abs=0.01
    )
    assert "Means only" not in stdout


def test_traces_come_before_summaries(server, measure):
    stdout, run = measure("--metrics-url", server.metrics_url)
    assert run.attribution.source == "traces"
    assert "summaries" not in stdout


def test_with_neither_there_are_means(measure):
    stdout, run = measure("--no-traces", "--metrics-url", "http://127.0.0.1:9/metrics")
    assert (run.attribution.source, run.attribution.percentiles_ms) == ("statistics", {})
    assert "Means only, from the server's statistics: no traces can be read here, nor summaries." in stdout


def test_a_metrics_url_that_is_none_is_one_sentence(images, loadtest):
    done = loadtest("--images", images, "--metrics-url", "127.0.0.1:8002")
    assert done.returncode == 1
    assert done.stderr.startswith("error: the metrics' URL must begin with http:// or https://")
