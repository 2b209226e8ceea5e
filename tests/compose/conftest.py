"""One Docker, one set of images and one `up` for all tests."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from compose.engine import Engine, Project, find_engine
from support import ROOT

STANDINS = Path(__file__).parent / "standins"
TEMPLATES = tuple(f"dk/usr/share/prometheus/alertmanager/{name}.tmpl" for name in ("default", "email"))
PROGRAMS = {
    "prometheus": ("dx/usr/bin/prometheus", "dk/usr/bin/promtool"),
    "alertmanager": ("dk/usr/bin/prometheus-alertmanager", "dk/usr/bin/amtool", *TEMPLATES),
    "grafana": (),
    "envoy": (),
}
"""By stand-in: what of the unpacked programs goes into it."""


def versions() -> dict[str, str]:
    return dict(re.findall(r"^(\w+)=(.*)$", (ROOT / ".env").read_text(), re.MULTILINE))


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    engine = find_engine()
    yield engine
    if engine.stop:
        engine.run(*engine.stop)


@pytest.fixture(scope="session")
def env_file(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What differs from .env here: secrets of our own, and stand-ins for images that cannot be pulled."""
    directory = tmp_path_factory.mktemp("compose")
    (directory / "models").mkdir()
    shutil.copy(ROOT / "demo" / "pcb_qat.onnx", directory / "models")
    (directory / "images").mkdir()
    shutil.copy(ROOT / "docs" / "board.jpg", directory / "images")
    directory.chmod(0o755)
    lines = [f"SECRETS={directory / 'secrets'}", f"MODELS={directory / 'models'}", f"IMAGES={directory / 'images'}"]
    if engine.unpacked:
        lines += standins(engine, engine.unpacked, directory / "standins")
    path = directory / "env"
    path.write_text("\n".join(lines) + "\n")
    engine.run(ROOT / "docker" / "secrets.sh", directory / "secrets", timeout_s=500)
    return path


def standins(engine: Engine, unpacked: Path, context: Path) -> list[str]:
    """Build the stand-ins, and return the lines of an env file that name them."""
    shutil.copytree(STANDINS, context)
    for programs in PROGRAMS.values():
        for program in programs:
            shutil.copy(unpacked / program, context)
    ours = versions()
    envoy = re.findall(r":v([\d.]+)", ours["ENVOY_IMAGE"])[0]
    arguments = ("--build-arg", f"PYTHON_IMAGE={ours['PYTHON_IMAGE']}", "--build-arg", f"ENVOY_VERSION={envoy}")
    for name in PROGRAMS:
        tag = ("--target", name, "--tag", f"triptych-standin:{name}")
        engine.run("docker", "build", "--quiet", *tag, *arguments, context)
    return [f"{name.upper()}_IMAGE=triptych-standin:{name}" for name in PROGRAMS]


@pytest.fixture(scope="session")
def secrets(env_file: Path) -> Path:
    return env_file.parent / "secrets"


@pytest.fixture(scope="session")
def project(engine: Engine, env_file: Path) -> Iterator[Project]:
    """The whole of it with one server, up; it is down afterwards, and nothing is left."""
    project = Project(engine, "triptych-test", env_file)
    project("down", "--volumes", "--remove-orphans")
    began = time.monotonic()
    try:
        project("up", "--detach", "--wait", "--wait-timeout", "150")
        print(f"up --wait: {time.monotonic() - began:.0f} s")
        yield project
    finally:
        print(project("logs", "--no-color", "--tail", "40", check=False).stdout)
        project("--profile", "*", "down", "--volumes", "--remove-orphans")
    assert project.leftovers() == []
