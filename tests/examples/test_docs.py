"""The shell blocks of the README and of the documents, run as a reader would paste them.

Every shell block carries a mark, a comment before it:

- `<!-- test -->`: a test runs it, and it must end with exit code 0.
- `<!-- test: slow -->`: the same, but only in `make test-all`, and so are the blocks after it in its document.
- `<!-- no test: why -->`: no test runs it.

The blocks of a document run in one shell, one after the other, in a folder that has MODEL.onnx, street.jpg, street.avi
and DIR (pictures). `stand_in.py` stands in for the command `triptych`: it lets `triptych serve` run in the background,
tells the other commands where that server is, and keeps measurements short. Where no block serves, the commands find
the session's server.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from support import ROOT
from support.documents import Block, documents, shell_blocks
from triptych.cli.app import app
from triptych.client import DEFAULT_ADDRESS
from triptych.serving.server import Ports

STAND_IN = ROOT / "tests" / "examples" / "stand_in.py"

FOREIGN_OPTIONS = {
    *("--headless", "--master", "--run-time", "--worker"),  # of Locust
    "--strict",  # of mkdocs
    *("--wait", "--wait-timeout"),  # of docker compose
    *("--cuda-memory-pool-byte-size", "--metrics-config", "--metrics-interval-ms"),  # of Triton
    "--short",  # of our campaigns, `python -m faults`
    *("--decode-in-inference", "--end2end", "--grid", "--max-wh"),  # of exporters
    *("--concurrency-range", "--max-threads", "--profile-export-file", "--request-rate-range"),  # of perf_analyzer
}
"""Options of other programs, of which the prose speaks."""

BLOCKS = [block for document in documents() for block in shell_blocks(document)]


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_block_says_whether_it_is_tested(block: Block) -> None:
    assert block.tested is not None, "a shell block needs `<!-- test -->` or `<!-- no test: why -->` before it"
    assert block.tested or block.words, "`<!-- no test: why -->` must say why"
    assert not block.tested or block.words in {"", "slow"}, f"no such mark: {block.words}"


def options_of(command: Any) -> set[str]:
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}


COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
OPTIONS = {name: options_of(command) for name, command in COMMANDS.items()}


def command_lines(text: str) -> Iterator[list[str]]:
    """Split a script into its commands, without comments, pipes and redirections."""
    for line in text.replace("\\\n", " ").splitlines():
        for command in re.split(r"&&|\|\||;|\|", line):
            words = shlex.split(command, comments=True, posix=True)
            if words:
                yield words


@pytest.mark.parametrize("block", [block for block in BLOCKS if "triptych " in block.commands], ids=str)
def test_every_command_and_option_is_there(block: Block) -> None:
    for name, *words in command_lines(block.commands):
        if name != "triptych" or not words or words[0].startswith("-"):
            continue
        command, *arguments = words
        assert command in OPTIONS, f"there is no command `triptych {command}`"
        used = {word.split("=")[0] for word in arguments if re.match(r"--[a-z]", word)}
        assert used <= OPTIONS[command], f"`triptych {command}` has no {', '.join(sorted(used - OPTIONS[command]))}"


@pytest.mark.parametrize("document", documents())
def test_every_option_in_the_prose_is_there(document: str) -> None:
    prose = re.sub(r"^```.*?^```$", "", (ROOT / document).read_text(), flags=re.MULTILINE | re.DOTALL)
    named = {
        option for code in re.findall(r"`([^`\n]+)`", prose) for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", code)
    }
    unknown = named - FOREIGN_OPTIONS - {"--version"}.union(*OPTIONS.values())
    assert not unknown, f"no command has {', '.join(sorted(unknown))}"


@pytest.mark.parametrize("document", documents())
def test_every_path_is_there(document: str) -> None:
    text = (ROOT / document).read_text()
    named = set(re.findall(r"`((?:client|build|loadtest|tests|docs|examples|model_repository)/[\w/.-]*)`", text))
    linked = {target for target in re.findall(r"\]\(([^)#\s:]+)[^)]*\)", text) if not target.startswith("http")}
    missing = [path for path in named if not (ROOT / path).exists()]
    # The site makes these pages from the code.
    missing += [path for path in linked if not ((ROOT / document).parent / path).exists() and path != "exit_codes.md"]
    assert not missing


class Reader:
    """A reader who pastes the blocks of a document into one shell."""

    def __init__(self, folder: Path, pictures: Path, video: Path) -> None:
        self.folder = folder
        self.home = folder / "work"
        self.servers = folder / "servers"
        self.ports = Ports.free()
        lay_out(self.home, pictures, video)
        # `triptych init` leaves alone what is there, so the reader's files can be in the new folder already.
        lay_out(self.home / "shop", pictures, video)
        command = folder / "bin" / "triptych"
        command.parent.mkdir()
        command.write_text(f'#!/bin/sh\nexec {sys.executable} {STAND_IN} "$@"\n')
        command.chmod(0o755)

    def paste(self, blocks: list[Block], address: str) -> None:
        """Run blocks, whose server is at an address; a failure names the block."""
        lines = ["trap 'echo \"the block at $block failed with exit code $?\"' ERR"]
        for block in blocks:
            lines += [f"block={block}", 'echo "== $block"', adapted(block).replace(DEFAULT_ADDRESS, address)]
        environment = {
            "PATH": os.pathsep.join([str(self.folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]),
            "STAND_IN_ADDRESS": address,
            "STAND_IN_PORTS": f"{self.ports.grpc} {self.ports.http} {self.ports.metrics}",
            "STAND_IN_SERVERS": str(self.servers),
        }
        done = subprocess.run(
            ["bash", "-e", "-c", "\n".join(lines)],
            cwd=self.home,
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        print(done.stdout)  # pytest shows it where a block fails
        assert done.returncode == 0, done.stdout.splitlines()[-1]

    def end_servers(self) -> None:
        """End the servers that the blocks started."""
        for pid in self.servers.read_text().split() if self.servers.exists() else []:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGTERM)


def lay_out(folder: Path, pictures: Path, video: Path) -> None:
    """Give a folder the files that the documents speak of."""
    (folder / "demo").mkdir(parents=True)
    for name in ("pcb.onnx", "pcb_qat.onnx"):
        (folder / "demo" / name).symlink_to(ROOT / "demo" / name)
    (folder / "MODEL.onnx").symlink_to(ROOT / "demo" / "pcb.onnx")
    (folder / "DIR").symlink_to(pictures)
    (folder / "street.jpg").symlink_to(pictures / "board-0.jpg")
    (folder / "street.avi").symlink_to(video)


def adapted(block: Block) -> str:
    """Leave out the virtual environment, which a test runs in, and make few pictures where a reader makes many."""
    lines = [line for line in block.commands.splitlines() if not line.startswith("source .venv/bin/activate")]
    return re.sub(r"--count \d+", "--count 4", "\n".join(lines))


@pytest.fixture
def reader(tmp_path: Path, pictures: Path, video: Path) -> Iterator[Reader]:
    pasting = Reader(tmp_path, pictures, video)
    yield pasting
    pasting.end_servers()


def blocks_to_run(document: str, with_slow: bool) -> list[Block]:
    """List the blocks of a document that run: all of them, or those before the first slow one."""
    blocks = [block for block in shell_blocks(document) if block.tested]
    first_slow = next((row for row, block in enumerate(blocks) if block.words == "slow"), len(blocks))
    return blocks if with_slow else blocks[:first_slow]


def run_blocks(blocks: list[Block], reader: Reader, request: pytest.FixtureRequest) -> None:
    if any(re.search(r"^triptych serve", block.commands, re.MULTILINE) for block in blocks):
        address = f"127.0.0.1:{reader.ports.grpc}"
    else:
        address = request.getfixturevalue("demo_server").grpc_address
    reader.paste(blocks, address)


@pytest.mark.triton
@pytest.mark.parametrize("document", [name for name in documents() if blocks_to_run(name, with_slow=False)])
def test_the_blocks_run(document: str, reader: Reader, request: pytest.FixtureRequest) -> None:
    run_blocks(blocks_to_run(document, with_slow=False), reader, request)


@pytest.mark.triton
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "document",
    [name for name in documents() if any(block.words == "slow" for block in blocks_to_run(name, with_slow=True))],
)
def test_the_blocks_run_with_those_that_take_long(
    document: str, reader: Reader, request: pytest.FixtureRequest
) -> None:
    run_blocks(blocks_to_run(document, with_slow=True), reader, request)


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="needs the extra `docs`")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert {f"commands/{name}/index.html" for name in COMMANDS} <= {str(page.relative_to(tmp_path)) for page in pages}
    for page in pages:
        loaded = re.findall(
            r'<(?:script|img|iframe)[^>]*\ssrc="(https?:)?//|<link[^>]*stylesheet[^>]*href="https?:', page.read_text()
        )
        assert not loaded, page
