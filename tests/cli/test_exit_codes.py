"""Exit codes mean one thing in every command: `console.EXIT_CODES` says what, and this table holds them to it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support import ROOT
from support.commands import triptych
from triptych.cli import console
from triptych.cli.app import COMMANDS, main
from triptych.cli.console import INTERRUPTED, OK, REFUSED, SERVER_DEAD, USAGE
from triptych.errors import ContractError, ServerCrashed, ServerStartError

DEMO = str(ROOT / "demo" / "pcb.onnx")
NOBODY = ("--address", "127.0.0.1:9")
"""Nothing listens on the discard port."""

NAMES = sorted(command.__name__ for commands in COMMANDS.values() for command in commands)

CASES = [
    (USAGE, "detect"),
    (USAGE, "detect", "x.jpg", "--score-threshold", "2"),
    (USAGE, "detect", "x.jpg", "--timeout-s", "0"),
    (USAGE, "track", "x.mp4"),
    (USAGE, "serve", "--grpc-port", "0"),
    (USAGE, "activate", "one"),
    (USAGE, "build", DEMO, "--precision", "fp99"),
    (USAGE, "build", DEMO, "--precision", "fp32 int8"),
    (USAGE, "build", DEMO, "--size", "640by480"),
    (USAGE, "adapt", DEMO),
    (USAGE, "quantize", DEMO, "--precision", "fp32", "--out", "x.onnx"),
    (USAGE, "engine", DEMO, "--profile", "8,4,1", "--out", "x.plan"),
    (USAGE, "verify", DEMO),
    (USAGE, "publish", DEMO, "--target", "toaster"),
    (USAGE, "runtimes"),
    (USAGE, "sweep", "--images", ".", "--users", "1,two"),
    (USAGE, "sweep", "--images", ".", "--users", "0"),
    (USAGE, "compare", "one.json"),
    (USAGE, "report", "run.json", "--budget-ms", "-1"),
    (USAGE, "profile", DEMO, "--out", "page.html"),
    (REFUSED, "models", "--model-repository", "empty"),
    (REFUSED, "activate", "7", "--model-repository", "empty"),
    (REFUSED, "doctor", "--model-repository", "empty"),
    (REFUSED, "serve", "--model-repository", "empty"),
    (REFUSED, "build", "missing.onnx", "--model-repository", "empty"),
    (REFUSED, "adapt", "missing.onnx", "--out", "x.onnx"),
    (REFUSED, "quantize", "missing.onnx", "--precision", "fp16", "--out", "x.onnx"),
    (REFUSED, "publish", "missing.onnx", "--model-repository", "empty"),
    (REFUSED, "export", "missing.pt", "--out", "x.onnx"),
    (REFUSED, "report", "missing.json"),
    (REFUSED, "profile", DEMO),
    (REFUSED, "profile", "7", "--model-repository", "empty"),
    (REFUSED, "compare", "a.json", "b.json"),
    (REFUSED, "init", "file"),
    (SERVER_DEAD, "detect", "image.png", *NOBODY),
    (SERVER_DEAD, "track", "images", *NOBODY, "--out", "x.jsonl", "--retry-s", "0"),
    (SERVER_DEAD, "sweep", "--images", "images", "--users", "1", "--duration-s", "1", *NOBODY),
    (OK, "init", "shop"),
    (OK, "--version"),
    *((OK, name, "--help") for name in NAMES),
    *((USAGE, name, "--no-such-option") for name in NAMES),
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an empty model repository, a file, and an image."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "images").mkdir()
    png = (ROOT / "docs" / "board.jpg").read_bytes()
    (tmp_path / "image.png").write_bytes(png)
    (tmp_path / "images" / "a.jpg").write_bytes(png)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("code", "arguments"), [(code, arguments) for code, *arguments in CASES])
def test_every_command(code: int, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["triptych", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert (ended.value.code or 0) == code


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        (SERVER_DEAD, ("--images", "images", "--duration-s", "1", *NOBODY)),
        (USAGE, ("--images", "images", "--rate", "x")),
    ],
)
@pytest.mark.parametrize("door", [(ROOT / "loadtest",), ("-m", "triptych", "loadtest")])
def test_the_load_test_and_its_door(code: int, arguments: tuple[str, ...], door: tuple[object, ...]) -> None:
    """It replaces its process with one that imports Locust first, so it is asked as a process."""
    command = [sys.executable, *map(str, door), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ServerCrashed("it died"), SERVER_DEAD),
        (ServerStartError("no port"), REFUSED),
        (ContractError("no"), REFUSED),
        (KeyboardInterrupt(), INTERRUPTED),
        (PermissionError(13, "Permission denied", "/x"), REFUSED),
    ],
)
def test_what_an_error_ends_with(error: BaseException, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        console.run(fail)
    assert ended.value.code == code
    assert "Traceback" not in capsys.readouterr().err


def test_an_unexpected_error_is_not_hidden() -> None:
    def fail() -> None:
        raise OSError("no file is to blame")

    with pytest.raises(OSError, match="no file is to blame"):
        console.run(fail)


def test_every_code_is_documented() -> None:
    assert set(console.EXIT_CODES) == {OK, REFUSED, USAGE, SERVER_DEAD, INTERRUPTED}


@pytest.mark.parametrize(
    "arguments",
    [
        ("ready",),
        ("doctor", "--model-repository", "published"),
        ("activate", "1", "--model-repository", "published"),
        ("build", DEMO),
        ("publish", "missing.onnx"),
        ("verify", DEMO, "--data", "images"),
    ],
)
def test_what_is_done_with_one_server_says_so_when_it_gets_several(arguments: tuple[str, ...], folder: Path) -> None:
    detector = folder / "published" / "detector"
    (detector / "1").mkdir(parents=True)
    for directory in (detector, detector / "1"):
        (directory / "config.pbtxt").write_text('backend: "python" version_policy { specific { versions: 1 } }')
    done = triptych(*arguments, "--address", "one:8001,two:8001")
    assert done.returncode == REFUSED
    assert "this is done with one server, but got several addresses (one:8001,two:8001)" in done.stderr
    assert (detector / "config.pbtxt").exists()
