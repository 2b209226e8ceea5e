"""The whole of Triptych in two minutes: build a detector, serve it, detect, and see where the time goes.

    make demo

Every step is a command that you could have typed; it is printed before it runs.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from triptych.cli.console import run
from triptych.errors import TriptychError
from triptych.serving.server import Ports, TritonServer
from triptych.vision.decode import image_files

ROOT = Path(__file__).parents[2]
OUT = Path(".triptych/demo")
"""Where the pictures go, from the root of the checkout, where every command runs."""

console = Console(highlight=False)


def step(title: str, *command: str) -> None:
    """Say what comes, show the command, run it.

    Raises:
        TriptychError: the command failed; it has said why itself.
    """
    console.print(f"\n[bold]{title}[/bold]")
    console.print(f"$ {shlex.join(['python', *command])}", style="cyan", soft_wrap=True)
    if subprocess.run([sys.executable, *command], cwd=ROOT, check=False).returncode:
        raise TriptychError(f"the demo ends here: `{shlex.join(['python', *command])}` failed")


def main() -> None:
    """Run the demo."""
    step("1. Build: the detector's ONNX becomes a version in the model repository", "build", "demo/pcb.onnx")
    pictures = str(OUT / "boards")
    step(
        "2. Pictures: circuit boards with defects, as a line-scan camera would see them",
        *("-m", "triptych_demo.detector.boards", "--out", pictures, "--count", "24", "--seed", "1"),
    )
    console.print("\n[bold]3. Serve: the real Triton server, on this machine alone[/bold]")
    console.print("$ triptych serve --free-ports", style="cyan")
    with ExitStack() as stack:
        with console.status("starting"):
            server = stack.enter_context(
                TritonServer(ROOT / "model_repository", ports=Ports.free(), log_path=ROOT / OUT / "server.log")
            )
        console.print(f"ready at {server.grpc_address}")
        shown = [str(path.relative_to(ROOT)) for path in image_files(ROOT / OUT / "boards" / "images")[:3]]
        found = str(OUT / "detections")
        step(
            "4. Detect: three boards, over gRPC",
            *("-m", "triptych", "detect", *shown, "--address", server.grpc_address, "--save", found),
        )
        step(
            "5. Measure: four users for ten seconds, the server's own statistics over the same window",
            *("loadtest", "--address", server.grpc_address, "--images", f"{pictures}/images", "--users", "4"),
            *("--model-repository", "model_repository", "--out", f"{OUT}/run.json"),
        )
    console.print(f"\nAnnotated pictures: {found}. The load test as a page: {OUT}/run.html.")
    console.print("Your own model is next: `python build MODEL.onnx`, see README.md.")


if __name__ == "__main__":
    run(main)
