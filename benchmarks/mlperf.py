"""The scenarios of `triptych loadtest --scenario`, and MLCommons' LoadGen driving our client, side by side.

    python benchmarks/mlperf.py                                       # starts the demo
    python benchmarks/mlperf.py --address HOST:PORT --images DIR      # a server that runs

Both have the same images and the same server, in turn, and each scenario's own figure is compared. For the server
scenario both search with the same steps; how LoadGen judges a rate is LoadGen's.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from fixtures import DEMO, ROOT, encoded_boards, our_repository
from loadgen import LoadGen
from rich.console import Console
from rich.table import Table

from triptych import TritonServer
from triptych.machine import available_cores, cpu_model
from triptych.measure.scenario import DEFAULT_BUDGET_MS, ScenarioName
from triptych.serving.preflight import Ports
from triptych_build.publish.target import InstanceGroup
from triptych_loadtest.payloads import read_images
from triptych_loadtest.scenarios import FEWEST_TO_TRY, PERCENT, SHORT, find_rate

NS_PER_MS = 1e6
UNITS = {"single-stream": "p90, ms", "multi-stream": "p99, ms", "server": "queries/s", "offline": "images/s"}


@dataclass(frozen=True)
class Both:
    """A scenario's figure by both.

    Attributes:
        scenario: which.
        ours: of each round.
        theirs: LoadGen's, of each round.
    """

    scenario: ScenarioName
    ours: list[float]
    theirs: list[float]

    @property
    def ratio(self) -> float:
        """Our best figure over LoadGen's best: other work on the machine can only make a figure worse."""
        best = min if self.scenario.endswith("stream") else max
        return best(self.ours) / best(self.theirs)


@dataclass(frozen=True)
class Bench:
    """What both have in common."""

    address: str
    images: Path
    seconds: float
    budget_ms: float
    users: int

    def compare(self, scenario: ScenarioName, rounds: int) -> Both:
        """Have both measure a scenario in turn."""
        both = Both(scenario, [], [])
        for _ in range(rounds):
            result = self._ours(scenario)
            both.ours.append(result["value"])
            both.theirs.append(self._theirs(scenario, result))
        return both

    def _ours(self, scenario: ScenarioName) -> dict[str, Any]:
        """Return the scenario of a load test's run; it must have a result."""
        command = [sys.executable, ROOT / "loadtest", "--scenario", scenario, "--address", self.address, "--json"]
        command += ["--images", self.images, "--duration-s", self.seconds, "--users", self.users]
        command += ["--budget-ms", self.budget_ms] if scenario == "server" else []
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{done.stderr}\n{scenario} failed with exit code {done.returncode}")
        scenario_of_run: dict[str, Any] = json.loads(done.stdout)["scenario"]
        return scenario_of_run

    def _theirs(self, scenario: ScenarioName, ours: dict[str, Any]) -> float:
        loadgen = LoadGen(self.address, read_images(self.images), self.users)
        if scenario == "server":
            return self._search(loadgen, capacity_per_s=2 * ours["tried"][0]["rate_per_s"])
        result = loadgen.run(scenario, self.seconds, per_s=ours["value"])
        return float(
            {
                "single-stream": lambda: result["early_stopping_latency_ss"] / NS_PER_MS,
                "multi-stream": lambda: result["early_stopping_latency_ms"] / NS_PER_MS,  # of multi-stream, in ns
                "offline": lambda: result["result_samples_per_second"],
            }[scenario]()
        )

    def _search(self, loadgen: LoadGen, capacity_per_s: float) -> float:
        def bears(rate_per_s: float) -> bool:
            seconds = max(SHORT * self.seconds, FEWEST_TO_TRY / rate_per_s)
            result = loadgen.run("server", seconds, rate_per_s, self.budget_ms)
            over = result["result_overlatency_query_count"] + result["failed"]
            return bool(over <= (1 - PERCENT / 100) * result["result_query_count"])

        def confirms(rate_per_s: float) -> bool:
            result = loadgen.run("server", self.seconds, rate_per_s, self.budget_ms)
            return bool(result["result_validity"] == "VALID" and not result["failed"])

        return find_rate(capacity_per_s, bears, confirms) or 0.0


@contextlib.contextmanager
def demo() -> Iterator[tuple[str, Path]]:
    """Serve the demo detector; give its address, and a directory of images."""
    with tempfile.TemporaryDirectory(prefix="triptych-mlperf-") as name:
        scratch, images = Path(name), Path(name) / "images"
        images.mkdir()
        for number, image in enumerate(encoded_boards(64)):
            (images / f"{number:02}.jpg").write_bytes(image)
        repository = our_repository(DEMO, scratch, InstanceGroup.for_cores(available_cores()))
        with TritonServer(repository, ports=Ports.free(), log_path=scratch / "log") as server:
            yield server.grpc_address, images


def table(results: Sequence[Both]) -> Table:
    """Show both figures of each scenario."""
    shown = Table(title=f"{cpu_model()}, {available_cores()} cores", title_justify="left")
    for name in ("scenario", "figure", "triptych loadtest", "LoadGen", "ratio"):
        shown.add_column(name, justify="left" if name in ("scenario", "figure") else "right")
    for both in results:
        figures = (", ".join(f"{value:.1f}" for value in values) for values in (both.ours, both.theirs))
        shown.add_row(both.scenario, UNITS[both.scenario], *figures, f"{both.ratio:.3f}")
    return shown


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--address", help="a server that runs; without, the demo is started")
    parser.add_argument("--images", type=Path, help="its images")
    parser.add_argument("--scenarios", default=",".join(get_args(ScenarioName)), help="which, with commas between them")
    parser.add_argument("--seconds", type=float, default=30, help="of each measurement (30)")
    parser.add_argument("--rounds", type=int, default=1, help="measurements of each (1)")
    parser.add_argument("--users", type=int, default=4, help="that send the images of offline (4)")
    parser.add_argument("--budget-ms", type=float, default=DEFAULT_BUDGET_MS, help="the bound of server (100)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    arguments = parser.parse_args()
    served = contextlib.nullcontext((arguments.address, arguments.images)) if arguments.address else demo()
    with served as (address, images):
        bench = Bench(address, images, arguments.seconds, arguments.budget_ms, arguments.users)
        results = [bench.compare(scenario, arguments.rounds) for scenario in arguments.scenarios.split(",")]
    if arguments.json:
        print(json.dumps([{**asdict(both), "ratio": both.ratio} for both in results]))
    else:
        Console().print(table(results))


if __name__ == "__main__":
    main()
