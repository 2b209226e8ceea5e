"""The locustfile as Locust itself runs it: headless, a master with workers, and what it refuses."""

from __future__ import annotations

import csv
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support import ROOT
from support.steady import SERVICE_MS, measured_in_peace
from triptych.serving.server import Ports

pytestmark = pytest.mark.triton

LOCUST = [sys.executable, "-m", "locust", "-f", str(ROOT / "loadtest" / "locustfile.py")]

Headless = Callable[..., dict[str, dict[str, Any]]]


@pytest.fixture
def headless(steady_address: str, images: Path, tmp_path: Path) -> Headless:
    """Run Locust to its end, alone or as a master of so many workers; its statistics, by the requests' name."""

    def run(*arguments: object, workers: int = 0) -> dict[str, dict[str, Any]]:
        out = tmp_path / f"{time.monotonic_ns()}.json"  # Locust adds the ending itself
        command = [*LOCUST, "--host", steady_address, "--images", str(images), "--headless"]
        command += ["--json-file", str(out.with_suffix("")), *map(str, arguments)]
        port = str(Ports.free().http)
        if workers:
            command += ["--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", port]
            command += ["--expect-workers", str(workers), "--expect-workers-max-wait", "60"]
        # Without the load's options: a worker gets them from its master.
        others = [
            subprocess.Popen(
                [*LOCUST, "--images", str(images), "--worker", "--master-port", port],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for _ in range(workers)
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=100)
            for other in others:
                other.wait(20)
        finally:
            for other in others:
                other.kill()
                other.wait()
        assert out.exists(), done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return {entry["name"]: entry for entry in json.loads(out.read_text())}

    return run


def p50_ms(entry: dict[str, Any]) -> float:
    """Return the median within a millisecond, to which Locust rounds."""
    times = [float(ms) for ms, count in entry["response_times"].items() for _ in range(count)]
    return statistics.median_grouped(times)


def test_a_closed_loop(headless: Headless) -> None:
    (entry,) = headless("-u", 2, "-r", 2, "-t", "1s").values()
    assert (entry["name"], entry["method"], entry["num_failures"]) == ("detect", "grpc", 0)
    assert entry["num_requests"] > 0


@pytest.mark.timing
@pytest.mark.slow
def test_the_run_time_counts_from_the_first_user(headless: Headless) -> None:
    (entry,) = headless("-u", 2, "-r", 2, "-t", "3s").values()
    # 3 s and not less: Locust would count them from before it read the images.
    assert 3 < entry["last_request_timestamp"] - entry["start_time"] + 0.5 < 5
    assert p50_ms(entry) > SERVICE_MS


@pytest.mark.timing
@pytest.mark.slow
def test_an_open_loop_has_a_rate_for_each_user(headless: Headless) -> None:
    (entry,) = headless("-u", 2, "-r", 2, "-t", "4s", "--rate", 5).values()
    assert entry["num_requests"] == pytest.approx(40, abs=5)


def test_a_dropped_frame_is_a_failure_without_a_latency(headless: Headless) -> None:
    entries = headless("-u", 1, "-t", "1s", "--fps", 100)
    assert entries["frame"]["num_failures"] == entries["frame"]["num_requests"] > entries["detect"]["num_requests"]
    assert entries["frame"]["response_times"] == {}
    assert entries["detect"]["num_failures"] == 0


@pytest.mark.timing
@pytest.mark.slow
def test_workers_get_the_run_time_for_the_shape(headless: Headless) -> None:
    load = ("-u", 2, "-r", 2, "-t", "5s", "--rate", 10, "--shape", "ramp", "--sizes", "64x48", "--batch", 2)
    (entry,) = headless(*load, workers=2).values()
    assert entry["name"] == "detect 64x48 x2"
    # 20 a second at its end, so half of 100 in all; a worker without the run time would stay at the full rate, or at 0.
    assert entry["num_requests"] == pytest.approx(50, abs=12)


@pytest.mark.slow
def test_a_shape_of_users_on_workers(headless: Headless, tmp_path: Path) -> None:
    # The last step takes a fifth of the time, and Locust writes down the users once a second.
    (entry,) = headless("-u", 4, "-t", "8s", "--shape", "step", "--csv", tmp_path / "csv", workers=2).values()
    assert entry["num_failures"] == 0
    with (tmp_path / "csv_stats_history.csv").open() as history:
        rows = [row for row in csv.DictReader(history) if row["Name"] == "Aggregated"]
    users = [int(row["User Count"]) for row in rows if int(row["User Count"])]
    assert users == sorted(users)
    assert (users[0], users[-1]) == (1, 4)


@pytest.mark.timing
@pytest.mark.slow
def test_a_master_with_two_workers_sees_what_one_process_sees(headless: Headless) -> None:
    """The same rate from one process and from two: p50 within 5%."""

    def check() -> None:
        (one,) = headless("-u", 2, "-r", 2, "-t", "5s", "--rate", 7.5).values()
        (two,) = headless("-u", 2, "-r", 2, "-t", "5s", "--rate", 7.5, workers=2).values()
        for entry in (one, two):
            assert entry["num_requests"] == pytest.approx(75, abs=15), "Locust's run time includes the spawning"
            assert entry["num_failures"] == 0
        assert p50_ms(two) == pytest.approx(p50_ms(one), rel=0.05)

    measured_in_peace(check)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--images", "/nowhere"), "there is no directory /nowhere"),
        (("--rate", 2, "--fps", 3), "one of them 0"),
        (("--host", "http://127.0.0.1:8001"), "the address must be host:port"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(images: Path, arguments: tuple[object, ...], sentence: str) -> None:
    command = [*LOCUST, "--headless", "--loglevel", "ERROR", "--images", str(images), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert sentence in done.stderr
