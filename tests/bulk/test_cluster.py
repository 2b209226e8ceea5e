"""`triptych bulk` on a real Ray: on this machine alone, and on two nodes of which one is killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="needs the packages of the extra `bulk`")

import pyarrow.parquet as pq

from support.fake_server import FakeServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

START_S = 240.0
"""Ray starts within seconds, and within minutes where the machine has much else to do."""

NODES = """
import sys, time
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
second = cluster.add_node(num_cpus=1)
print(cluster.address, flush=True)
sys.stdin.readline()
cluster.remove_node(second, allow_graceful=False)  # SIGKILL
print("killed", flush=True)
sys.stdin.readline()
cluster.shutdown()
"""
"""Two nodes on this machine; the second dies when a line comes, and both end with the next one."""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Ray asks for no token, and leaves nothing in the home of whoever runs the tests."""
    return {**os.environ, "RAY_AUTH_MODE": "disabled", "HOME": str(tmp_path), "COLUMNS": "200"}


@pytest.fixture
def nodes(environment: dict[str, str]) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address of two Ray nodes, and the process that has them. Ray itself gives a node 30 s to start."""
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", NODES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert process.stdin
        assert process.stdout
        if address := process.stdout.readline().strip():
            break
        process.communicate()
    else:
        pytest.skip("Ray did not start in three tries: the machine is too busy")
    try:
        yield address, process
    finally:
        process.communicate("\n\n")


@pytest.fixture
def slow_server() -> Iterator[FakeServer]:
    """A server that takes its time, so that shards are under way when a node dies."""
    fake = FakeServer(delay_s=0.1, max_batch_size=16).start()
    yield fake
    fake.stop()


def make_images(folder: Path, count: int) -> list[str]:
    """Make files of a few bytes, one of them empty; the fake server finds an object for each byte."""
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:04d}.jpg").write_bytes(b"x" * (number % 5 + 1) if number != 7 else b"")
    return [str(folder / f"{number:04d}.jpg") for number in range(count)]


def start(environment: dict[str, str], *words: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "triptych", "bulk", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def rows_of(out: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(out).to_pylist()
    return rows


def wait_for_parts(out: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + START_S
    while len(list(out.glob("part-*.parquet"))) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_every_image_once_though_a_node_is_killed(
    nodes: tuple[str, subprocess.Popen[str]], slow_server: FakeServer, environment: dict[str, str], tmp_path: Path
) -> None:
    address, holder = nodes
    paths, out = make_images(tmp_path / "images", 1000), tmp_path / "out"
    options = ("--out", out, "--ray", address, "--address", slow_server.address, "--shard-images", 50, "--json")
    bulk = start(environment, tmp_path / "images", *options)
    wait_for_parts(out, 3, bulk)
    assert holder.stdin
    assert holder.stdout
    holder.stdin.write("\n")
    holder.stdin.flush()
    assert holder.stdout.readline() == "killed\n"
    done_at_the_kill = len(list(out.glob("part-*.parquet")))
    printed, errors = bulk.communicate(timeout=START_S)
    assert bulk.returncode == 1, errors  # one image is empty
    assert done_at_the_kill < 20
    assert json.loads(printed)["images"] == 1000
    rows = rows_of(out)
    assert Counter(row["path"] for row in rows) == Counter(paths)
    assert [row["path"] for row in rows if row["error"]] == [paths[7]]
    assert all(len(row["objects"]) == number % 5 + 1 for number, row in enumerate(rows) if number != 7)


def test_what_a_lost_server_ended_is_continued(
    slow_server: FakeServer, environment: dict[str, str], tmp_path: Path
) -> None:
    paths, out = make_images(tmp_path / "images", 200), tmp_path / "out"
    options = ("--out", out, "--address", slow_server.address, "--shard-images", 20, "--retry-s", 1, "--timeout-s", 5)
    first = start(environment, tmp_path / "images", *options)
    wait_for_parts(out, 1, first)
    slow_server.stop()
    _, errors = first.communicate(timeout=START_S)
    assert first.returncode == 3, errors
    assert "of 10 shards are done; continue with --resume" in errors
    assert f"no server answers at {slow_server.address}" in errors
    done = {path.name: path.stat().st_mtime_ns for path in out.glob("part-*.parquet")}
    assert len(done) < 10
    slow_server.start()
    second = start(environment, tmp_path / "images", *options, "--resume", "--json")
    printed, errors = second.communicate(timeout=START_S)
    assert second.returncode in (0, 1), errors  # whether the empty image was in the first run is chance
    assert json.loads(printed)["shards_before"] == len(done)
    assert {name: (out / name).stat().st_mtime_ns for name in done} == done
    assert Counter(row["path"] for row in rows_of(out)) == Counter(paths)
