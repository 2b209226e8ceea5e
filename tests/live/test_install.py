"""A wheel in a bare environment, in an empty folder: all of the tool, and nothing of the checkout."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest

from support import ROOT
from triptych_demo.detector.boards import generate

pytestmark = [pytest.mark.triton, pytest.mark.slow, pytest.mark.timeout(900)]


def run(*command: object, cwd: Path) -> str:
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of what git knows, uncommitted changes included."""
    copy = tmp_path_factory.mktemp("source")
    for name in run("git", "ls-files", "-co", "--exclude-standard", cwd=ROOT).splitlines():
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copy / name)
    run("git", "init", "-q", cwd=copy)
    run("git", "add", "-A", cwd=copy)
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", out, ".", cwd=source)
    return next(out.glob("triptych-*.whl"))


@pytest.fixture(scope="module")
def triptych(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `triptych` command of an environment that holds the wheel and what it asks for, and no more."""
    directory = tmp_path_factory.mktemp("environment")
    venv.create(directory, with_pip=True)
    run(directory / "bin" / "python", "-m", "pip", "install", "-q", wheel, cwd=directory)
    return directory / "bin" / "triptych"


@pytest.fixture(scope="module")
def shop(triptych: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `triptych init shop` made in an empty folder, with the demo's detector published."""
    folder = tmp_path_factory.mktemp("empty")
    run(triptych, "init", "shop", cwd=folder)
    run(triptych, "build", ROOT / "demo" / "pcb.onnx", cwd=folder / "shop")
    return folder / "shop"


@pytest.fixture(scope="module")
def address(triptych: Path, shop: Path) -> Iterator[str]:
    """The gRPC address of `triptych serve`."""
    command = [str(triptych), "serve", "--free-ports", "--log", "server.log"]
    with subprocess.Popen(command, cwd=shop, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        line = next((line for line in lines if line.strip().startswith("gRPC")), "")
        match = re.search(r"127\.0\.0\.1:\d+", line)
        assert match, "the server did not say its address"
        yield match[0]
        process.terminate()
        assert process.wait(30) == 0


def test_a_wheel_leaves_the_checkout_clean(source: Path, wheel: Path) -> None:
    assert wheel.is_file()
    assert run("git", "diff", "--name-only", cwd=source) == ""
    assert run("git", "ls-files", "-o", "--exclude-standard", cwd=source) == ""


def test_detect(triptych: Path, shop: Path, address: str) -> None:
    board = generate(1, 0)
    (shop / "board.jpg").write_bytes(board.jpeg)
    out = run(triptych, "detect", "board.jpg", "--address", address, "--save", "pictures", cwd=shop)
    assert "board.jpg" in out
    assert cv2.imread(str(shop / "pictures" / "board.jpg")) is not None


def test_load_test_and_locustfile(triptych: Path, shop: Path, address: str) -> None:
    (shop / "images").mkdir()
    (shop / "images" / "board.jpg").write_bytes(generate(1, 1).jpeg)
    options = ["--address", address, "--images", "images", "--duration-s", "1", "--warmup-s", "0.5"]
    assert "owns" in run(triptych, "loadtest", *options, "--out", "run.json", cwd=shop)
    assert (shop / "run.html").is_file()
    locust = triptych.with_name("locust")
    headless = ["--headless", "--users", "1", "--run-time", "1s", "--host", address, "--images", "images"]
    run(locust, "-f", "locustfile.py", *headless, cwd=shop)


def test_every_command_has_its_help(triptych: Path, shop: Path) -> None:
    commands = re.findall(r"^│ ([a-z]+) ", run(triptych, "--help", cwd=shop), flags=re.MULTILINE)
    assert {"init", "build", "serve", "detect", "loadtest", "demo"} <= set(commands)
    for command in commands:
        assert "Usage" in run(triptych, command, "--help", cwd=shop)
