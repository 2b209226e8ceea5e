"""`python loadtest --scenario` against the real server, and MLCommons' LoadGen beside it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support import ROOT
from support.steady import Planted, measured_in_peace
from support.types import Loadtest
from triptych.cli.console import REFUSED, USAGE
from triptych.measure import run_file

pytestmark = pytest.mark.triton


def test_a_scenario_is_measured(steady_address: str, images: Path, loadtest: Loadtest, tmp_path: Path) -> None:
    out = tmp_path / "run.json"
    done = loadtest(
        *("--scenario", "multi-stream", "--address", steady_address, "--images", images, "--duration-s", 2),
        *("--out", out, "--warmup-s", 0.5),
    )
    assert done.returncode == REFUSED, "there are too few queries in two seconds"
    run = run_file.read(out)
    assert run.scenario
    assert "too few queries" in run.scenario.problem
    assert (run.workload.users, run.workload.batch) == (1, 8)
    assert run.server["detector"].mean_batch == 8
    assert "multi-stream: no result, too few queries" in done.stdout
    assert "not a valid MLPerf length: 2 s of 600 s" in done.stdout
    assert "multi-stream: no result" in out.with_suffix(".html").read_text()


def test_a_rate_of_the_server_scenario(steady_address: str, images: Path, loadtest: Loadtest) -> None:
    done = loadtest(
        *("--scenario", "server", "--rate", 10, "--budget-ms", 5000, "--address", steady_address, "--images", images),
        *("--duration-s", 2, "--warmup-s", 0.5, "--json"),
    )
    assert done.returncode == REFUSED, "459 queries are needed"
    scenario = json.loads(done.stdout)["scenario"]
    assert (scenario["name"], scenario["value"], len(scenario["tried"])) == ("server", None, 1)
    assert scenario["tried"][0]["over"] == 0


def test_a_loop_of_one_s_own_is_refused(steady_address: str, images: Path, loadtest: Loadtest) -> None:
    done = loadtest("--scenario", "offline", "--fps", 5, "--address", steady_address, "--images", images)
    assert done.returncode == USAGE
    assert "has a loop of its own" in done.stderr


@pytest.mark.timing
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("scenario", ["single-stream", "offline"])
def test_loadgen_agrees_to_five_percent(scenario: str, planted: Planted, images: Path) -> None:
    """Of the scenarios that have a figure within seconds; the benchmark measures the others, in ten minutes."""
    pytest.importorskip("mlperf_loadgen", reason="needs mlcommons-loadgen, of the extra `dev`")

    def check() -> None:
        command = [sys.executable, ROOT / "benchmarks" / "mlperf.py", "--json", "--scenarios", scenario]
        command += ["--address", planted.server.grpc_address, "--images", images]
        command += ["--seconds", 8, "--rounds", 2]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        (both,) = json.loads(done.stdout)
        assert both["ratio"] == pytest.approx(1, abs=0.05), both

    measured_in_peace(check)
