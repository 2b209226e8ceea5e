"""The operating system's view of the embedded server: its model processes, who holds a port, what is left over."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import psutil

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


def holder_of_port(port: int) -> str:
    """Return `NAME (process PID)` of who listens on a TCP port of this machine, or "" where we may not see it."""
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
            if listens and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
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
