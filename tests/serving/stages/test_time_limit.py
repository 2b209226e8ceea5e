"""A process that does not come back from an execution, and one that does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from triptych.serving.stages.time_limit import VARIABLE

HANGS = """
from triptych.serving.stages.time_limit import time_limit
for _ in range(3):
    with time_limit():
        pass
print("came back", flush=True)
with time_limit():
    {block}
"""


def run(block: str, within_s: str | None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    if within_s:
        environment[VARIABLE] = within_s
    return subprocess.run(
        [sys.executable, "-c", HANGS.format(block=block)], env=environment, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize(
    "block",
    ["exec('while True: pass')", "import time; time.sleep(600)", "import threading; threading.Event().wait()"],
)
def test_who_hangs_ends_and_its_log_says_where(block: str) -> None:
    ended = run(block, "0.5")
    assert ended.returncode == -signal.SIGALRM
    assert ended.stdout == "came back\n"
    assert "most recent call first" in ended.stderr


def test_the_limit_is_taken_off_again() -> None:
    assert run("pass\nimport time; time.sleep(1)", "0.5").returncode == 0


def test_where_nobody_would_start_it_again_there_is_no_limit() -> None:
    assert run("import time; time.sleep(1)", None).returncode == 0
