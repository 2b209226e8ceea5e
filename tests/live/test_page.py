"""The tab in Locust's web page: its figures, and what it says while there is no server."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc
import pytest

from support import ROOT
from support.steady import SERVICE_MS, steady_repository
from triptych.contract import DETECTION, STAGES
from triptych.errors import ServerUnavailable
from triptych.serving.server import Ports, TritonServer
from triptych.wire.statistics import Counters
from triptych_loadtest.live import POLLS, Live

NS = 1_000_000


def counters(requests: int, detector_ms: float = 20, failures: int = 0) -> dict[str, Counters]:
    """What a server has counted after so many requests: 2 ms in each stage, but for the detector."""
    stages = {
        stage.name: Counters(
            requests=requests,
            failures=failures,
            inferences=requests,
            executions=requests // 2,
            total_ns=int(requests * ms * NS),
            queue_ns=int(requests * ms * NS / 4),
            infer_ns=int(requests * ms * NS / 4 * 3),
        )
        for stage in STAGES
        for ms in [detector_ms if stage.name == "detector" else 2]
    }
    total_ns = sum(stage.total_ns for stage in stages.values()) + requests * NS
    return {**stages, DETECTION.name: Counters(requests=requests, total_ns=total_ns)}


def test_the_table_is_of_the_last_seconds_alone():
    live = Live()
    live.poll(0, counters(1000, detector_ms=500))
    for second in range(1, POLLS + 5):
        live.count([30.0] * 20, failures=1)
        live.poll(2.0 * second, counters(1000 * (second > 0), 500) | counters(1000 + 20 * second, 500))
    table = {row["stage"]: row for row in live.rows()}
    assert [*table] == [
        *("preprocess", "detector", "postprocess", "ensemble overhead", "network and client", "client, end to end")
    ]
    assert table["preprocess"]["rate"] == pytest.approx(10)
    assert table["detector"]["batch"] == 2
    assert table["client, end to end"]["failures"] == POLLS - 1
    assert table["client, end to end"]["total"] == pytest.approx(30)


def test_the_parts_are_the_client_s_mean_and_the_owner_is_named():
    live = Live()
    live.poll(0, counters(50))
    live.count([30.0] * 10, failures=0)
    live.poll(4, counters(60))
    *parts, client = live.rows()
    assert sum(row["total"] for row in parts) == pytest.approx(client["total"]) == pytest.approx(30)
    assert sum(row["share"] for row in parts) == pytest.approx(1)
    assert {row["stage"]: row["total"] for row in parts}["ensemble overhead"] == pytest.approx(1)
    assert [row["note"] for row in parts if "note" in row] == [
        "detector owns 67% of the mean: 15.0 ms in the model, 5.0 ms waiting for a free instance"
    ]


def test_while_there_is_nothing_to_show_it_says_why():
    live = Live()
    (row,) = live.rows()
    assert row["note"] == "the server has not been asked yet"
    live.poll(0, counters(5))
    assert live.trouble == "no request was answered in the last seconds"
    live.count([30.0], 0)
    live.poll(2, counters(6))
    assert live.trouble == ""
    live.poll(4, ServerUnavailable("no server answers", grpc.StatusCode.UNAVAILABLE))
    (row,) = live.rows()
    assert row["note"] == "no server answers"


def test_a_server_that_began_anew_is_not_held_against_the_one_before():
    live = Live()
    for second, requests in enumerate((500, 520, 3)):
        live.count([30.0] * 20, 0)
        live.poll(2.0 * second, counters(requests))
    assert live.trouble
    live.count([30.0] * 5, 0)
    live.poll(6, counters(8))
    assert live.rows()[0]["rate"] == pytest.approx(5 / 2)


def read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as response:
        return response.read().decode()


def post(url: str, form: dict[str, object]) -> dict:
    data = urllib.parse.urlencode(form).encode()
    with urllib.request.urlopen(url, data, timeout=10) as response:
        return json.load(response)


def until(found: Callable[[], object], seconds: float = 40) -> object:
    deadline = time.monotonic() + seconds
    while not (result := found()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.3)
    return result


@contextmanager
def web_page(images, *arguments: str, workers: int = 0) -> Iterator[str]:
    """Locust with its web page; alone, or as a master of so many workers."""
    ports = Ports.free()
    locust = [sys.executable, "-m", "locust", "-f", str(ROOT / "loadtest" / "locustfile.py"), "--images", str(images)]
    web = [*locust, "--web-host", "127.0.0.1", "--web-port", str(ports.http), *arguments]
    web += ["--master", "--master-bind-port", str(ports.grpc)] if workers else []
    others = [[*locust, "--worker", "--master-port", str(ports.grpc)] for _ in range(workers)]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    processes = [subprocess.Popen(command, **quiet) for command in (web, *others)]
    url = f"http://127.0.0.1:{ports.http}"
    try:

        def ready() -> bool:
            try:
                return json.loads(read(f"{url}/worker-count"))["worker_count"] == workers
            except OSError:
                return False

        until(ready)
        yield url
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(30)


def filled_in(images_shown, address: str, /, **changed: object) -> dict[str, object]:
    """The form as Locust's page sends it."""
    usual = {"user_count": 1, "spawn_rate": 1, "host": address, "run_time": "", "profile": "", "images": images_shown}
    ours = {"batch": 1, "sizes": "", "poisson": "false", "fps": 0, "rate": 0, "shape": "constant"}
    return {**usual, **ours, **changed}


@pytest.fixture(scope="module")
def repository(make_repository):
    return steady_repository(make_repository)


@pytest.mark.triton
@pytest.mark.slow
def test_the_page_lives_through_a_server_that_goes_and_comes_back(repository, images):
    ports, log = Ports.free(), repository.parent / "log"
    with web_page(images) as url:
        address = f"127.0.0.1:{ports.grpc}"

        def shown() -> dict:
            return json.loads(read(f"{url}/triptych"))

        def failures() -> dict[str, int]:
            errors = json.loads(read(f"{url}/stats/requests"))["errors"]
            return {re.match(r"\w+", error["error"])[0]: error["occurrences"] for error in errors}

        with TritonServer(repository, ports=ports, log_path=log):
            assert '"extended_tabs"' in read(url)
            assert post(f"{url}/swarm", filled_in(images, address, user_count=2, spawn_rate=2))["success"]
            until(lambda: not shown()["trouble"])
            table = {row["stage"]: row for row in shown()["rows"]}
            assert table["detector"]["infer"] > SERVICE_MS
            assert table["detector"]["rate"] > 0
            assert "detector owns" in table["detector"]["note"]
            (tab,) = until(lambda: json.loads(read(f"{url}/stats/requests")).get("extended_stats"))
            assert [row["name"] for row in tab["data"]] == list(range(6)), "in our order"
            assert not failures()
        gone = until(lambda: shown()["trouble"])
        assert address in gone
        until(lambda: "ServerUnavailable" in failures())
        time.sleep(2)
        assert failures()["ServerUnavailable"] < 400, "two users ask some ten times a second each, and do not spin"
        with TritonServer(repository, ports=ports, log_path=log):
            until(lambda: not shown()["trouble"])
            assert {row["stage"]: row for row in shown()["rows"]}["detector"]["infer"] > SERVICE_MS


@pytest.mark.triton
@pytest.mark.slow
def test_what_the_page_is_filled_in_with_reaches_the_users_of_workers(repository, images):
    log = repository.parent / "log"
    with (
        TritonServer(repository, ports=Ports.free(), log_path=log) as server,
        web_page(images, workers=2) as url,
    ):

        def run(**changed: object) -> list[dict]:
            form = filled_in(images, server.grpc_address, **changed)
            assert post(f"{url}/swarm", form)["success"]
            until(lambda: not json.loads(read(f"{url}/triptych"))["trouble"])
            time.sleep(6)  # workers report every three seconds
            stats = json.loads(read(f"{url}/stats/requests"))["stats"]
            post(f"{url}/stop", {})
            until(lambda: json.loads(read(f"{url}/stats/requests"))["state"] == "stopped")
            until(lambda: json.loads(read(f"{url}/worker-count"))["worker_count"] == 2)
            return stats

        closed = run(user_count=2, spawn_rate=2)
        assert [entry["name"] for entry in closed] == ["detect", "Aggregated"]
        sized = run(user_count=2, spawn_rate=2, sizes="64x48, 32x32", batch=2, rate=3)
        assert [entry["name"] for entry in sized] == ["detect 32x32 x2", "detect 64x48 x2", "Aggregated"]
        # Two users with three a second each; those of the closed loop send ten times as many.
        assert 6 <= sized[-1]["num_requests"] <= 50 < closed[-1]["num_requests"]
        camera = run(user_count=2, spawn_rate=2, fps=100)
        assert [entry["name"] for entry in camera] == ["detect", "frame", "Aggregated"]
        ramp = run(user_count=4, shape="ramp", run_time="8s")
        assert ramp[-1]["num_requests"] > 0


@pytest.mark.triton
def test_a_form_that_cannot_be_is_refused_with_its_reason(images):
    with web_page(images, "--host", "127.0.0.1:9") as url:
        for changed, reason in (
            ({"rate": 1, "fps": 1}, "they are two loops"),
            ({"poisson": "true"}, "poisson needs a rate"),
            ({"shape": "ramp"}, "the shape ramp needs a run time"),
            ({"shape": "ramp", "run_time": "soon"}, "time span"),
            ({"sizes": "large"}, "a size must be WIDTHxHEIGHT"),
            ({"images": "/nowhere"}, "there is no directory /nowhere"),
            ({"batch": 0}, "a batch must be of 1 to 16"),
            ({"host": "http://127.0.0.1"}, "the address must be host:port"),
        ):
            answer = post(f"{url}/swarm", filled_in(images, "127.0.0.1:9", **changed))
            assert not answer["success"], changed
            assert reason in answer["message"]
        assert "no server answers at 127.0.0.1:9" in json.loads(read(f"{url}/triptych"))["trouble"]
