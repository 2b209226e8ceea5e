"""A stand-in for Triton on this machine, whose model grows."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from triptych.serving.processes import SERVER, STUB

# It listens, and starts a process for its model, as Triton does.
_SERVER = """
import socket, subprocess, sys
listener = socket.create_server(("127.0.0.1", 0))
model = subprocess.Popen([sys.argv[1], sys.argv[2], "region"], stdout=subprocess.PIPE)
model.stdout.readline()
print(listener.getsockname()[1], flush=True)
model.wait()
"""

# It starts a process of its own, and grows.
_MODEL = """
import subprocess, time
helper = subprocess.Popen(["sleep", "60"])
print(flush=True)
held, files = [], []
while True:
    held.append(bytearray(b"x") * 500_000)
    files.append(open("/dev/null"))
    time.sleep(0.02)
"""


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """The port of such a server."""
    for program in (SERVER, STUB):  # the kernel names a process after its file
        (tmp_path / program).symlink_to(os.path.realpath(sys.executable))
    model = tmp_path / "detector" / "3" / "model.py"
    model.parent.mkdir(parents=True)
    model.write_text(_MODEL)
    command = [str(tmp_path / SERVER), "-c", _SERVER, str(tmp_path / STUB), str(model)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout
        yield int(process.stdout.readline())
        os.killpg(process.pid, 9)
