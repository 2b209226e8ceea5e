"""The operating system's view of the embedded server: its model processes, who holds a port, what is left over."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

SERVER = "tritonserver"
"""The program that serves."""

STUB = "triton_python_backend_stub"
"""The program that runs one instance of one Python model."""


@dataclass(frozen=True)
class ModelProcess:
    """One running instance of a Python model."""

    pid: int
    model: str
    version: str


def model_processes(server: psutil.Process) -> list[ModelProcess]:
    """Return the model processes of a server that are alive, by process id; none if the server is gone."""
    try:
        children = server.children()
    except psutil.NoSuchProcess:
        return []
    processes = []
    for child in children:
        try:
            arguments = child.cmdline()
        except psutil.Error:  # gone, or dead and not yet collected by the server
            continue
        # stub MODEL_FILE SHM_REGION …, where MODEL_FILE is <repository>/<model>/<version>/model.py
        if len(arguments) > 2 and Path(arguments[0]).name == STUB:
            version = Path(arguments[1]).parent
            processes.append(ModelProcess(child.pid, version.parent.name, version.name))
    return sorted(processes, key=lambda process: process.pid)


def environment_of(process: psutil.Process) -> dict[str, str]:
    """Return the variables that a process was started with; none if it is gone, or not ours to read."""
    try:
        return process.environ()
    except psutil.Error:
        return {}


def stopped_processes(processes: Iterable[ModelProcess]) -> list[ModelProcess]:
    """Return those that a signal has stopped (SIGSTOP), and that nobody debugs."""
    stopped = []
    for process in processes:
        with contextlib.suppress(psutil.Error):  # gone
            if psutil.Process(process.pid).status() == psutil.STATUS_STOPPED:
                stopped.append(process)
    return stopped


def kill_processes(processes: Iterable[ModelProcess]) -> None:
    """Kill model processes; the server collects them."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)


def hide_argument(pid: int, secret: str) -> bool:
    """Overwrite `secret` in the command line of a process of ours, which every user can read; False if that failed.

    The process has read its arguments by then.
    """
    with contextlib.suppress(OSError, ValueError):
        # The name of the program, in brackets, may have blanks. Fields 48 and 49 are where the arguments are.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        begin, end = int(fields[45]), int(fields[46])
        with Path(f"/proc/{pid}/mem").open("r+b", buffering=0) as memory:
            memory.seek(begin)
            arguments = memory.read(end - begin)
            memory.seek(begin)
            memory.write(arguments.replace(secret.encode(), b"*" * len(secret)))
        return secret not in Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    return False


def process_on_port(port: int) -> psutil.Process | None:
    """Return who listens on a TCP port of this machine, or None where nobody does or we may not see it."""
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
            if listens and connection.pid:
                return psutil.Process(connection.pid)
    return None


def holder_of_port(port: int) -> str:
    """Return `NAME (process PID)` of who listens on a TCP port of this machine, or "" where we may not see it."""
    with contextlib.suppress(psutil.Error):
        if (holder := process_on_port(port)) is not None:
            return f"{holder.name()} (process {holder.pid})"
    return ""


def marked_processes(marker: str) -> list[psutil.Process]:
    """Return every process with `marker` in its command line."""
    return [process for process in psutil.process_iter() if _is_marked(process, marker)]


def kill_marked(marker: str, timeout_s: float = 5.0) -> None:
    """Kill every process with `marker` in its command line and wait until they are gone."""
    marked = marked_processes(marker)
    for process in marked:
        with contextlib.suppress(psutil.Error):  # gone meanwhile, or of another user
            process.kill()
    psutil.wait_procs(marked, timeout=timeout_s)


def _is_marked(process: psutil.Process, marker: str) -> bool:
    try:
        return any(marker in argument for argument in process.cmdline())
    except psutil.Error:
        return False
