"""Files of Ultralytics: a checkpoint is exported to ONNX by its own tool, and an engine is split from its header.

Ultralytics is AGPL-3.0 and no part of Triptych: the user's own installation exports a checkpoint, in a process of its
own. An Ultralytics `.engine` is a TensorRT plan behind a header: a length of 4 bytes (little endian), then JSON.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from triptych.errors import BuildError
from triptych.files import atomic_write

ENGINES = (".engine", ".plan")

MAX_HEADER_BYTES = 1_000_000
"""A header is a few kilobytes; a bare plan's first four bytes, read as a length, are far more."""

EXPORT_TIMEOUT_S = 1800.0
"""How long an export may take."""


def as_onnx(path: Path, out_dir: Path, size: tuple[int, int] | None = None) -> Path:
    """Return the ONNX of a source: the file itself, or an Ultralytics checkpoint's export in `out_dir`.

    Args:
        path: an `.onnx` or a `.pt`.
        out_dir: where an export goes.
        size: width and height to export a checkpoint with; by default its own.

    Raises:
        BuildError: the file is missing or is neither, the exporter is not installed, or the export failed.
    """
    suffix = path.suffix.lower()
    if suffix not in (".onnx", ".pt", *ENGINES):
        raise BuildError(f"a source is an .onnx or an Ultralytics .pt, but got {path.name}; export it to ONNX")
    if not path.is_file():
        raise BuildError(f"there is no file {path}")
    if suffix in ENGINES:
        raise BuildError(
            f"{path.name} is a finished engine, to which Triptych can no longer add; build from the "
            f".pt or .onnx that it was made of (take its class names with --names {path.name})"
        )
    if suffix != ".pt":
        return path
    out = out_dir / f"{path.stem}.onnx"
    export(path, out, size)
    return out


def export(checkpoint: Path, out: Path, size: tuple[int, int] | None = None) -> None:
    """Have the user's Ultralytics write a checkpoint's ONNX, which is whole or not there.

    Args:
        checkpoint: a `.pt`. Ultralytics writes next to it, so it gets a copy.
        out: the ONNX.
        size: width and height to export with; by default the checkpoint's own.

    Raises:
        BuildError: the file is missing or damaged, Ultralytics is not installed, or the export failed.
    """
    _check(checkpoint)
    with tempfile.TemporaryDirectory(prefix="triptych-export-") as scratch:
        copy = Path(scratch) / "checkpoint.pt"
        shutil.copyfile(checkpoint, copy)
        # Ultralytics opens the size together with the batch; adapt fixes the size again.
        arguments = ["export", f"model={copy}", "format=onnx", "dynamic=True", "simplify=False", "device=cpu"]
        if size:
            arguments.append(f"imgsz={size[1]},{size[0]}")
        done = _run(exporter(), arguments, checkpoint, Path(scratch))
        exported = copy.with_suffix(".onnx")
        if done.returncode or not exported.is_file():
            output = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
            lines = [line.strip() for line in output.splitlines() if line.strip()]
            raise BuildError(f"Ultralytics did not export {checkpoint}: {lines[-1] if lines else 'it printed nothing'}")
        with atomic_write(out) as aside:
            shutil.copyfile(exported, aside)


def _check(checkpoint: Path) -> None:
    if not checkpoint.is_file():
        raise BuildError(f"there is no file {checkpoint}")
    with checkpoint.open("rb") as file:
        is_pickle = file.read(1) == b"\x80"  # as PyTorch wrote them before 1.6
    if not (is_pickle or zipfile.is_zipfile(checkpoint)):
        raise BuildError(
            f"{checkpoint} is not a PyTorch checkpoint, or is cut short; copy it again, or export it to ONNX"
        )


def _run(command: str, arguments: list[str], checkpoint: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            [command, *arguments],
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=EXPORT_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"Ultralytics did not export {checkpoint} in {EXPORT_TIMEOUT_S:.0f} s") from error
    except OSError as error:
        raise BuildError(f"{command} cannot be run: {error.strerror}; install Ultralytics again") from error


def exporter() -> str:
    """Return the command of the user's Ultralytics: next to this Python, or else on the PATH.

    Raises:
        BuildError: it is not installed.
    """
    command = shutil.which("yolo", path=str(Path(sys.executable).parent)) or shutil.which("yolo")
    if command:
        return command
    raise BuildError(
        "Ultralytics exports a .pt; it is not installed, and no part of Triptych. Install it yourself (AGPL-3.0) in an "
        "environment of its own, since its OpenCV and NumPy would take the place of ours: `python -m venv ultralytics "
        "&& ultralytics/bin/pip install ultralytics && export PATH=$PATH:$PWD/ultralytics/bin`; or export the model "
        "to ONNX"
    )


def split_engine(path: Path) -> tuple[dict[str, Any], int]:
    """Return the metadata of an Ultralytics engine and where its plan begins; {} and 0 for a bare plan.

    Raises:
        BuildError: the file is missing, or is cut short before its plan begins.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(4), "little")
            header = file.read(length) if length <= MAX_HEADER_BYTES else b""
            has_plan = bool(file.read(1))
    except OSError as error:
        raise BuildError(f"{path} cannot be read: {error.strerror}") from error
    if not header.startswith(b"{"):
        if path.stat().st_size <= 4:
            raise BuildError(f"{path} is not an engine: it has {path.stat().st_size} bytes; build it again")
        return {}, 0
    if len(header) < length or not has_plan:
        raise BuildError(f"{path} is cut short: there is no plan behind its header; copy it again, or build it again")
    try:
        metadata: dict[str, Any] = json.loads(header)
    except ValueError as error:
        raise BuildError(f"{path} has a header that is not JSON ({error}); build it again") from error
    return metadata, 4 + length


def engine_names(path: Path) -> list[str]:
    """Return the class names in an Ultralytics engine's header, by class id.

    Raises:
        BuildError: it has none.
    """
    metadata, _ = split_engine(path)
    names = metadata.get("names")
    if isinstance(names, dict):
        try:
            names = [names[number] for number in sorted(names, key=int)]
        except ValueError:
            names = None
    if not isinstance(names, list) or not names:
        raise BuildError(f"{path} has no class names in its header; write them to a file, one a line")
    return [str(name) for name in names]


def write_plan(path: Path, out: Path) -> dict[str, Any]:
    """Write the bare plan of an engine, as Triton takes it, and return the metadata of its header.

    Raises:
        BuildError: the file is no Ultralytics engine, or the disk refuses.
    """
    metadata, offset = split_engine(path)
    if not offset:
        raise BuildError(f"{path} has no header of Ultralytics; it is a bare plan already, or no engine")
    try:
        with path.open("rb") as file, atomic_write(out) as aside, aside.open("wb") as plan:
            file.seek(offset)
            shutil.copyfileobj(file, plan, 1 << 20)
    except OSError as error:
        raise BuildError(f"{out} cannot be written: {error.strerror or error}") from error
    return metadata
