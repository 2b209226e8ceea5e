"""What `triptych bulk` costs next to `triptych detect`, and whether every image is there once though a node is killed.

    pip install 'triptych[bulk]' && python benchmarks/bulk.py

Both commands get the same small JPEGs and the same server on this machine, one after the other, in processes of their
own. Then bulk does them once more on two Ray nodes; one is killed when a quarter of the shards is done, and the rows of
all files are counted. `--instant` serves a detector that answers at once, so that the client's own cost shows.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import cv2
import pyarrow.parquet as pq
from fixtures import DEMO, our_repository
from tracing import AT_ONCE

from triptych import TritonServer
from triptych.machine import available_cores, cpu_model
from triptych.serving.preflight import Ports
from triptych_build.publish.target import InstanceGroup
from triptych_demo.detector import boards

PACKAGES = ("triptych", "ray", "pyarrow", "nvidia-pytriton", "openvino", "tritonclient", "numpy")
DISTINCT = 20
"""How many images are different; the others are links to them."""

NODES = """
import sys
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
second = cluster.add_node(num_cpus=1)
print(cluster.address, flush=True)
sys.stdin.readline()
cluster.remove_node(second, allow_graceful=False)
sys.stdin.readline()
cluster.shutdown()
"""
"""Two nodes on this machine; the second one is killed when a line comes, and all ends with the next one."""


def make_images(folder: Path, count: int, side: int) -> None:
    """Make JPEGs of boards, each of `side` x `side` pixels."""
    folder.mkdir()
    for number in range(count):
        path = folder / f"{number:06d}.jpg"
        if number < DISTINCT:
            cv2.imwrite(str(path), cv2.resize(boards.generate(seed=11, index=number).image[..., ::-1], (side, side)))
        else:
            os.link(folder / f"{number % DISTINCT:06d}.jpg", path)


def run(*words: object) -> float:
    """Run a command of ours to its end; return the seconds that it took."""
    started = time.perf_counter()
    with tempfile.TemporaryFile() as out:
        subprocess.run([sys.executable, "-m", "triptych", *map(str, words)], stdout=out, check=True)
    return time.perf_counter() - started


@contextmanager
def two_nodes() -> Iterator[subprocess.Popen[str]]:
    """Give the process that has two Ray nodes; its first line is their address."""
    process = subprocess.Popen([sys.executable, "-c", NODES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.communicate("\n\n")


def run_and_kill(source: Path, out: Path, shards: int, *words: object) -> tuple[float, int]:
    """Run bulk on two nodes, and kill one of them; return the seconds, and how many shards were done at the kill."""
    with two_nodes() as nodes:
        assert nodes.stdin
        assert nodes.stdout
        address, started = nodes.stdout.readline().strip(), time.perf_counter()
        command = [sys.executable, "-m", "triptych", "bulk", source, "--out", out, "--ray", address, *words]
        with subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL) as bulk:
            while (done := len(list(out.glob("part-*.parquet")))) < shards // 4 and bulk.poll() is None:
                time.sleep(0.05)
            nodes.stdin.write("\n")
            nodes.stdin.flush()
        if bulk.returncode:
            raise SystemExit(f"bulk ended with exit code {bulk.returncode}")
        return time.perf_counter() - started, done


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--side", type=int, default=320, help="of an image, in pixels")
    parser.add_argument("--shard-images", type=int, default=500)
    parser.add_argument("--instant", action="store_true", help="serve a detector that answers at once")
    parser.add_argument("--parts", default="detect,bulk,killed", help="which of the three, with commas between them")
    options = parser.parse_args(argv)
    parts = options.parts.split(",")
    shards = -(-options.images // options.shard_images)
    rows = []
    with tempfile.TemporaryDirectory(prefix="triptych-benchmark-") as name:
        folder = Path(name)
        source = folder / "images"
        make_images(source, options.images, options.side)
        repository = our_repository(DEMO, folder, InstanceGroup.for_cores(available_cores()))
        if options.instant:
            model = repository / "detector" / "1" / "model.py"
            model.write_text(model.read_text() + AT_ONCE)
        with TritonServer(repository, ports=Ports.free(), log_path=folder / "log") as server:
            common = ("--address", server.grpc_address)
            how = (*common, "--shard-images", options.shard_images)
            if "detect" in parts:
                rows.append(("detect --json", run("detect", source, "--json", "--timeout-s", 60, *common)))
            if "bulk" in parts:
                rows.append(("bulk", run("bulk", source, "--out", folder / "once", *how)))
            if "killed" in parts:
                seconds, done = run_and_kill(source, folder / "killed", shards, *how)
                rows.append((f"bulk on two nodes, one killed after {done} of {shards} shards", seconds))
        paths = sorted(map(str, source.iterdir()))
        for out in sorted({folder / "once", folder / "killed"} & set(folder.iterdir())):
            table = pq.read_table(out)
            counts = Counter(table["path"].to_pylist())
            once = sum(counts[path] == 1 for path in paths)
            failed = table.num_rows - table["error"].null_count
            print(
                f"{out.name}: {table.num_rows} rows, {once} of {len(paths)} images exactly once, {failed} with an error"
            )
    packages = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    print(f"\n{available_cores()} cores of {cpu_model()}; {packages}; {options}\n")
    print("| command | s | images/s |\n| --- | --- | --- |")
    for command, seconds in rows:
        print(f"| {command} | {seconds:.1f} | {options.images / seconds:.0f} |")


if __name__ == "__main__":
    main()
