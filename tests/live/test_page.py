"""The tab in Locust's web page on the real server, and what its form refuses."""

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
from pathlib import Path
from typing import Any, TypeVar

import pytest

from support import ROOT
from support.steady import SERVICE_MS, steady_repository
from triptych.serving.server import Ports, TritonServer

pytestmark = pytest.mark.triton

Value = TypeVar("Value")


def read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as response:
        return str(response.read().decode())


def post(url: str, form: dict[str, object]) -> dict[str, Any]:
    data = urllib.parse.urlencode(form).encode()
    with urllib.request.urlopen(url, data, timeout=10) as response:
        answer: dict[str, Any] = json.load(response)
        return answer


def until(condition: Callable[[], Value], seconds: float = 40) -> Value:
    """Wait until a condition holds, and return its value."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.1)
    return result


@contextmanager
def web_page(images: Path, *arguments: str, workers: int = 0) -> Iterator[str]:
    """Locust with its web page; alone, or as a master of so many workers."""
    ports = Ports.free()
    locust = [sys.executable, "-m", "locust", "-f", str(ROOT / "loadtest" / "locustfile.py"), "--images", str(images)]
    web = [*locust, "--web-host", "127.0.0.1", "--web-port", str(ports.http), *arguments]
    web += ["--master", "--master-bind-port", str(ports.grpc)] if workers else []
    others = [[*locust, "--worker", "--master-port", str(ports.grpc)] for _ in range(workers)]
    nothing = subprocess.DEVNULL
    processes = [subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=nothing) for command in (web, *others)]
    url = f"http://127.0.0.1:{ports.http}"
    try:

        def ready() -> bool:
            try:
                return bool(json.loads(read(f"{url}/worker-count"))["worker_count"] == workers)
            except OSError:
                return False

        until(ready)
        yield url
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(30)


def filled_in(images_shown: Path, address: str, /, **changed: object) -> dict[str, object]:
    """The form as Locust's page sends it."""
    usual = {"user_count": 1, "spawn_rate": 1, "host": address, "run_time": "", "profile": "", "images": images_shown}
    ours = {"batch": 1, "sizes": "", "poisson": "false", "fps": 0, "seed": 0, "rate": 0, "shape": "constant"}
    return {**usual, **ours, **changed}


@pytest.fixture(scope="module")
def repository(make_repository: Callable[..., Path]) -> Path:
    return steady_repository(make_repository)


@pytest.mark.slow
def test_the_page_lives_through_a_server_that_goes_and_comes_back(repository: Path, images: Path) -> None:
    ports, log = Ports.free(), repository.parent / "log"
    with web_page(images) as url:
        address = f"127.0.0.1:{ports.grpc}"

        def shown() -> dict[str, Any]:
            return dict(json.loads(read(f"{url}/triptych")))

        def failures() -> dict[str, int]:
            errors = json.loads(read(f"{url}/stats/requests"))["errors"]
            return {re.split(r"\W", error["error"])[0]: error["occurrences"] for error in errors}

        with TritonServer(repository, ports=ports, log_path=log):
            assert '"extended_tabs"' in read(url)
            assert post(f"{url}/swarm", filled_in(images, address, user_count=2, spawn_rate=2))["success"]
            until(lambda: not shown()["why_empty"])
            table = {row["stage"]: row for row in shown()["rows"]}
            assert table["detector"]["infer"] > SERVICE_MS
            assert table["detector"]["rate"] > 0
            assert "detector owns" in table["detector"]["note"]
            (tab,) = until(lambda: json.loads(read(f"{url}/stats/requests")).get("extended_stats"))
            assert [row["name"] for row in tab["data"]] == list(range(6)), "in our order"
            assert not failures()
        gone = until(lambda: shown()["why_empty"])
        assert address in gone
        until(lambda: "ServerUnavailable" in failures())
        time.sleep(2)
        assert failures()["ServerUnavailable"] < 400, "two users ask some ten times a second each, and do not spin"
        with TritonServer(repository, ports=ports, log_path=log):
            until(lambda: not shown()["why_empty"])
            assert {row["stage"]: row for row in shown()["rows"]}["detector"]["infer"] > SERVICE_MS


@pytest.mark.timing
@pytest.mark.slow
def test_what_the_page_is_filled_in_with_reaches_the_users_of_workers(repository: Path, images: Path) -> None:
    log = repository.parent / "log"
    with (
        TritonServer(repository, ports=Ports.free(), log_path=log) as server,
        web_page(images, workers=2) as url,
    ):

        def run(**changed: object) -> list[dict[str, Any]]:
            form = filled_in(images, server.grpc_address, **changed)
            assert post(f"{url}/swarm", form)["success"]
            until(lambda: not json.loads(read(f"{url}/triptych"))["why_empty"])
            time.sleep(6)  # workers report every three seconds
            stats: list[dict[str, Any]] = json.loads(read(f"{url}/stats/requests"))["stats"]
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


def test_a_form_that_cannot_be_is_refused_with_its_reason(images: Path) -> None:
    with web_page(images, "--host", "127.0.0.1:9") as url:
        for changed, reason in (
            ({"rate": 1, "fps": 1}, "one of them 0"),
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
        assert "no server answers at 127.0.0.1:9" in json.loads(read(f"{url}/triptych"))["why_empty"]
