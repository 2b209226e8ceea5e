"""The campaign's command line; see the package."""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import psutil

from faults import connections, machine, overload, private, processes, publishing, soak
from faults.scenario import Bench, Outcome, Scenario, Skipped, table
from faults.service import Service
from fuzz.campaign import small_repository
from support.images import JPEG
from support.steady import plant_switches
from triptych import DetectionClient
from triptych.machine import available_cores, cpu_model
from triptych.serving.scratch import remove_leftovers

SCENARIOS: list[Scenario] = [
    *overload.SCENARIOS,
    *connections.SCENARIOS,
    *publishing.SCENARIOS,
    *machine.SCENARIOS,
    *processes.SCENARIOS,
    *soak.SCENARIOS,
]
SHORT_SOAK_MIN = 0.2
TEMPORARY_MB = 16
INSTANCES = 2


def main() -> int:
    """Do every fault, print what came of it, and return 1 if something did not hold."""
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("--short", action="store_true", help="what takes a minute and a half in all")
    parser.add_argument("--only", help="these scenarios, with commas: " + ", ".join(one.name for one in SCENARIOS))
    parser.add_argument("--minutes", type=float, help="of the soak (30; 0.2 in the short form)")
    options = parser.parse_args()
    private.enter()
    names = options.only.split(",") if options.only else []
    chosen = [one for one in SCENARIOS if (one.name in names if names else one.is_short or not options.short)]
    minutes = options.minutes or (SHORT_SOAK_MIN if options.short else 30.0)
    print(
        f"{cpu_model()}, {available_cores()} cores, load {os.getloadavg()[0]:.1f}; Python {platform.python_version()}, "
        f"nvidia-pytriton {version('nvidia-pytriton')}; {'own mounts' if private.is_private() else 'no own mounts'}"
    )
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        rows, remains = campaign(Path(name), chosen, options.short, minutes)
    print(table(rows))
    print("left behind: " + (", ".join(remains) or "nothing"))
    broken = [one.name for one, outcome in rows if isinstance(outcome, Outcome) and outcome.broken]
    print(f"did not hold: {', '.join(broken)}" if broken else "everything held")
    return 1 if broken or remains else 0


def campaign(
    directory: Path, scenarios: list[Scenario], short: bool, minutes: float
) -> tuple[list[tuple[Scenario, Outcome | str]], list[str]]:
    """Do faults to one service after the other; return what came of each, and what was left behind at the end."""
    temporary = directory / "tmp"
    temporary.mkdir()
    repository = small_repository(directory, INSTANCES)
    plant_switches(repository / "detector" / "1" / "model.py")
    os.environ.update({"TMPDIR": str(temporary), "XDG_STATE_HOME": str(directory / "state")})
    if private.is_private():
        private.mount(temporary, TEMPORARY_MB)
    try:
        with Service(repository, directory) as service:
            with DetectionClient(service.address, timeout_s=60) as client:
                good = client.detect(JPEG)
            bench = Bench(directory, service, directory / "adapted.onnx", good, short, minutes)
            rows = [(scenario, attempt(scenario, bench)) for scenario in scenarios]
        return rows, remains(directory)
    finally:
        if private.is_private():
            private.unmount(temporary)


def attempt(scenario: Scenario, bench: Bench) -> Outcome | str:
    """Do one fault; return what came of it, or why it was skipped."""
    began = time.monotonic()
    try:
        outcome = scenario.run(bench)
    except Skipped as error:
        return str(error)
    said = "; ".join(outcome.broken) or "held"
    print(f"{scenario.name}: {said} ({time.monotonic() - began:.0f} s)", file=sys.stderr, flush=True)
    return outcome


def remains(directory: Path) -> list[str]:
    """Return what servers left that have ended, and that the next start does not remove."""
    remove_leftovers()
    left = [str(path) for path in (directory / "tmp").iterdir()]
    left += map(str, (directory / "state").rglob("*.key"))
    if private.is_private():
        left += map(str, Path("/dev/shm").iterdir())
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and any(str(directory) in word for word in process.cmdline()):
                left.append(f"process {process.pid} {process.name()}")
    return left


if __name__ == "__main__":
    sys.exit(main())
