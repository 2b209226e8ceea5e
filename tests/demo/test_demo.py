"""The demo's steps: shown as a person would type them, and run."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from rich.console import Console

from triptych.errors import TriptychError
from triptych_demo import demo
from triptych_demo.demo import Steps, model_path


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=40, soft_wrap=True, highlight=False)


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_step_is_shown_before_it_runs(console: Console, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Steps(console).step("1. Ask", ["triptych", "--version"], ["python", "-c", f"open({str(tmp_path / 'b')!r}, 'w')"])
    assert shown(console).splitlines()[1:3] == ["1. Ask", "$ triptych --version"]
    assert "$ python -c 'open(" in shown(console)
    assert capfd.readouterr().out.startswith("triptych ")
    assert (tmp_path / "b").exists()


def test_a_step_that_fails_ends_the_demo(console: Console, tmp_path: Path) -> None:
    with pytest.raises(TriptychError, match=r"the demo ends here: `python -c .*` failed"):
        Steps(console).step("1.", ["python", "-c", "import sys; sys.exit(3)"], ["python", "-c", "1 / 0"])
    assert "1 / 0" not in shown(console)


def test_the_model_is_in_the_package_or_next_to_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert model_path().stat().st_size > 1_000_000
    package = tmp_path / "triptych_demo"
    monkeypatch.setattr(demo, "__file__", str(package / "demo.py"))
    assert model_path() == tmp_path / "pcb.onnx"
    package.mkdir()
    (package / "pcb.onnx").touch()
    assert model_path() == package / "pcb.onnx"


def test_everything_runs_with_this_python(console: Console, capfd: pytest.CaptureFixture[str]) -> None:
    Steps(console).step("1.", ["python", "-c", "import sys; print(sys.executable)"])
    assert capfd.readouterr().out.strip() == sys.executable
