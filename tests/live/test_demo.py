"""`triptych demo` from nothing: an empty folder, and everything it promises at the end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from triptych.measure import run_file

pytestmark = [pytest.mark.triton, pytest.mark.slow, pytest.mark.timeout(600)]


def test_the_demo_runs_in_an_empty_folder(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "triptych", "demo", "--duration-s", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    out = tmp_path / ".triptych" / "demo"
    assert [path.name for path in tmp_path.iterdir()] == [".triptych"]
    assert [path.name for path in (tmp_path / ".triptych").iterdir()] == ["demo"]
    assert run_file.read(out / "run.json").client.latencies.count > 0
    assert (out / "run.html").is_file()
    assert len(list((out / "detections").glob("*.jpg"))) == 3
    for program in ("init", "build", "serve", "detect", "loadtest"):
        assert f"$ triptych {program} " in done.stdout
    assert "Where the time goes" in done.stdout
    assert "of the mean: " in done.stdout
    assert (
        "Annotated pictures: .triptych/demo/detections. The load test as a page: .triptych/demo/run.html."
        in done.stdout
    )
