"""`triptych tune` with real servers: what it starts, what it finds, and what is left when it is stopped."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from support.commands import triptych
from support.steady import measured_in_peace, steady_repository
from triptych.measure import tuning
from triptych.measure.documents import to_json
from triptych.measure.tuning_runner import Servers
from triptych.measure.tuning_search import FIRST_TRIES
from triptych.serving.fitting import Fitting
from triptych.serving.server import Ports, TritonServer
from triptych.serving.tuned import FILE, Place, Tuned
from triptych_build.publish.target import InstanceGroup

pytestmark = [pytest.mark.triton, pytest.mark.slow]


@pytest.fixture
def repository(demo_repository: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(demo_repository, tmp_path / "models"))


def test_a_short_search(repository: Path, images: Path, tmp_path: Path) -> None:
    """Without time for a step it says so, and changes nothing."""
    out = tmp_path / "tuning.json"
    done = triptych(
        *("tune", "--images", images, "--model-repository", repository, "--users", 4),
        *("--minutes", 0.1, "--duration-s", 1, "--out", out, "--json"),
    )
    assert done.returncode == 0, done.stderr
    result = tuning.read(out)
    assert [one.settings for one in result.tries] == [Fitting(repository).settings()] * FIRST_TRIES
    assert min(one.images_per_s for one in result.tries) > 0
    assert {one.wall for one in result.tries} <= {"preprocess", "detector", "postprocess"}
    assert json.loads(done.stdout)["sentence"] == result.sentence
    assert "0 others were tried" in result.sentence
    assert not (repository / FILE).exists()
    assert "What each step brought" in out.with_suffix(".html").read_text()


@pytest.mark.timing
def test_what_the_tries_show_and_what_is_served_afterwards(
    make_repository: Callable[..., Path], images: Path, tmp_path: Path
) -> None:
    """Two instances of a detector that sleeps answer twice as many; that is served then, until somebody asks."""
    repository = steady_repository(make_repository, 80, group=InstanceGroup(count=1, threads=1))
    servers = Servers(repository, images, 8, 1, 2, tmp_path)
    start = servers.start()
    two = replace(start, detector=2)

    def check() -> None:
        before, after = servers.measure(start), servers.measure(two)
        assert before.wall == after.wall == "detector"
        assert before.stages["detector"].busy > 0.8
        assert 1.6 < after.images_per_s / before.images_per_s < 2.4

    measured_in_peace(check)
    gathering = servers.measure(replace(two, batch=2, delay_us=500))
    assert gathering.images_per_s > 0, gathering.refused
    assert servers.runs[-1].server["detector"].mean_batch > 1.2
    assert "/dev/shm" in servers.measure(replace(two, detector=10**6)).refused

    tuned = Tuned(two, Place.here(repository), "2026-11-26T10:00:00+00:00")
    (repository / FILE).write_text(json.dumps({"tuned": to_json(tuned)}))
    with TritonServer(repository, ports=Ports.free(), log_path=tmp_path / "log") as server:
        assert server.served()["detector", "1"] == 2
        assert server.decisions["detector"] == "1 thread each, as tuned on 2026-11-26"
    with TritonServer(repository, ports=Ports.free(), log_path=tmp_path / "log", instances={"detector": 1}) as server:
        assert server.served()["detector", "1"] == 1


def test_stopped_it_leaves_no_server_and_no_file(repository: Path, images: Path) -> None:
    command = ["-m", "triptych", "tune", "--images", images, "--model-repository", repository, "--users", 2]
    with subprocess.Popen(
        [sys.executable, *map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        while not servers_of(repository):
            assert process.poll() is None
            time.sleep(0.05)
        time.sleep(5)  # its load test is under way, or about to be
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert servers_of(repository) == []
    assert not (repository / FILE).exists()


def servers_of(repository: Path) -> list[int]:
    """Return the processes of Triton that serve a repository."""
    return [
        process.pid
        for process in psutil.process_iter(["name", "cmdline"])
        if process.info["name"] == "tritonserver" and any(str(repository) in word for word in process.info["cmdline"])
    ]
