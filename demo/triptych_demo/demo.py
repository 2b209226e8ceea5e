"""The whole of Triptych in two minutes: build a detector, serve it, detect, and see where the time goes.

Every step is a command that a person could type; it is printed before it runs. All files are in `OUT`.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from triptych.errors import TriptychError
from triptych.serving.server import Ports, TritonServer
from triptych.vision.decode import image_files

OUT = Path(".triptych/demo")
"""Where everything is, in the current directory."""

BOARDS = OUT / "boards"
DETECTIONS = OUT / "detections"
REPOSITORY = OUT / "model_repository"
RUN = OUT / "run.json"


def model_path() -> Path:
    """Return the demo's detector: in the package where it was installed, next to it in a checkout."""
    package = Path(__file__).parent
    packaged = package / "pcb.onnx"
    return packaged if packaged.is_file() else package.parent / "pcb.onnx"


def run_demo(duration_s: float, console: Console) -> None:
    """Build, serve, detect and measure.

    Args:
        duration_s: how long the load test measures.
        console: where the titles and the commands are printed; the commands print for themselves.

    Raises:
        TriptychError: a step failed; it printed why.
    """
    shell = Steps(console)
    shell.step(
        "1. Lay out a model repository, and build: the detector's ONNX becomes a version in it",
        ["triptych", "init", OUT],
        ["triptych", "build", _short(model_path()), "--model-repository", REPOSITORY, "--cache", OUT / "cache"],
    )
    shell.step(
        "2. Pictures: circuit boards with defects, as a line-scan camera would see them",
        ["python", "-m", "triptych_demo.detector.boards", "--out", BOARDS, "--count", 24, "--seed", 1],
    )
    shell.title("3. Serve: the real Triton server, on this machine alone")
    shell.show(["triptych", "serve", "--model-repository", REPOSITORY, "--free-ports"])
    with ExitStack() as stack:
        with console.status("starting"):
            server = stack.enter_context(TritonServer(REPOSITORY, ports=Ports.free(), log_path=OUT / "server.log"))
        console.print(f"ready at {server.grpc_address}")
        at = ["--address", server.grpc_address]
        load = ["--images", BOARDS / "images", "--users", 4, "--duration-s", f"{duration_s:g}"]
        shell.step(
            "4. Detect: three boards, over gRPC",
            ["triptych", "detect", *image_files(BOARDS / "images")[:3], *at, "--save", DETECTIONS],
        )
        shell.step(
            f"5. Measure: four users for {duration_s:g} seconds, and who takes the time that they wait",
            ["triptych", "loadtest", *at, *load, "--model-repository", REPOSITORY, "--out", RUN],
        )
    console.print(f"\nAnnotated pictures: {DETECTIONS}. The load test as a page: {RUN.with_suffix('.html')}.")
    console.print("Your own model is next: `triptych init DIR`, then `triptych build MODEL.onnx` in DIR.")


class Steps:
    """Shows commands as a person would type them, and runs them with this Python."""

    def __init__(self, console: Console) -> None:
        """Print to a console."""
        self._console = console

    def title(self, text: str) -> None:
        """Print what comes."""
        self._console.print(f"\n[bold]{text}[/bold]")

    def show(self, command: list[object]) -> None:
        """Print a command."""
        self._console.print(f"$ {shlex.join(map(str, command))}", style="cyan", soft_wrap=True, markup=False)

    def step(self, title: str, *commands: list[object]) -> None:
        """Print what comes, then print and run each command.

        Raises:
            TriptychError: a command failed; it printed why.
        """
        self.title(title)
        for command in commands:
            self.show(command)
            program, *arguments = map(str, command)
            module = ["-m", program] if program == "triptych" else []
            if subprocess.run([sys.executable, *module, *arguments], check=False).returncode:
                raise TriptychError(f"the demo ends here: `{shlex.join(map(str, command))}` failed")


def _short(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
