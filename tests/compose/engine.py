"""Docker: the machine's own, or one that is unpacked for the tests where there is none."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support import ROOT

CONTAINERS = ROOT.parent / "shared" / "containers"
"""Makes a Docker engine where there is none."""


@dataclass(frozen=True)
class Engine:
    """Where `docker` is, and from where published ports are reached.

    Attributes:
        environment: variables for each command.
        outside: what a command begins with that reaches published ports.
        unpacked: where programs lie whose images cannot be pulled; None: images can be pulled.
        stop: what ends it; empty if it ran before.
    """

    environment: Mapping[str, str]
    outside: tuple[str, ...] = ()
    unpacked: Path | None = None
    stop: tuple[str, ...] = ()

    def run(self, *command: str | Path, timeout_s: float = 300, check: bool = True) -> subprocess.CompletedProcess[str]:
        return run(command, self.environment, timeout_s, check=check)

    def run_outside(
        self, *command: str | Path, timeout_s: float = 120, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        return run((*self.outside, *command), self.environment, timeout_s, check=check)


def run(
    command: Sequence[str | Path], environment: Mapping[str, str], timeout_s: float, *, check: bool
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        env=environment,
        timeout=timeout_s,
        cwd=ROOT,
        check=False,
    )
    assert not check or done.returncode == 0, (
        f"{command}: {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    )
    return done


def find_engine() -> Engine:
    """Return Docker as it is installed, or start the unpacked one; skip the test if there is neither."""
    environment = dict(os.environ)
    if shutil.which("docker") and subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0:
        return Engine(environment)
    if not CONTAINERS.is_dir():
        pytest.skip("there is no Docker here")
    home = Path(environment.setdefault("CTR_DIR", str(Path.home() / ".cache" / "containers")))
    home.mkdir(parents=True, exist_ok=True)
    run([CONTAINERS / "setup.sh"], environment, 600, check=True)
    script = f'. "{CONTAINERS}/env.sh" && python3 -c "import json, os; print(json.dumps(dict(os.environ)))"'
    environment = json.loads(run(["sh", "-c", script], environment, 10, check=True).stdout)
    stop: tuple[str, ...] = ()
    if run(["docker", "info"], environment, 20, check=False).returncode:
        # Its daemon outlives the command, and must not hold our pipes.
        subprocess.run([CONTAINERS / "dockerd.sh", "start"], env=environment, stdout=subprocess.DEVNULL, check=True)
        stop = (str(CONTAINERS / "dockerd.sh"), "stop")
    return Engine(environment, (str(CONTAINERS / "ns.sh"),), home, stop)


class Project:
    """A compose project of the repository's own files, under a name of its own."""

    def __init__(self, engine: Engine, name: str, env_file: Path, *, profile: str = "cpu") -> None:
        self.engine = engine
        self.name = name
        files = ("--env-file", str(ROOT / ".env"), "--env-file", str(env_file))
        self.words = ("docker", "compose", "--project-name", name, *files, "--profile", profile)

    def __call__(self, *words: str, timeout_s: float = 300, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.engine.run(*self.words, *words, timeout_s=timeout_s, check=check)

    def config(self) -> dict[str, Any]:
        config: dict[str, Any] = json.loads(self("config", "--format", "json").stdout)
        return config

    def containers(self, service: str) -> list[str]:
        return self("ps", "--all", "--quiet", service).stdout.split()

    def leftovers(self) -> list[str]:
        """Return the containers, volumes and networks that the project has."""
        label = f"label=com.docker.compose.project={self.name}"
        kinds = (("ps", "--all"), ("volume", "ls"), ("network", "ls"))
        return [
            name
            for kind in kinds
            for name in self.engine.run("docker", *kind, "--quiet", "--filter", label).stdout.split()
        ]
