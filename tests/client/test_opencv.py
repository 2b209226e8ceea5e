"""Another package's OpenCV in the place of ours: one sentence, where it is used."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from support.fake_server import FakeServer
from support.videos import make_pictures
from triptych import opencv
from triptych.errors import TriptychError

SENTENCE = (
    "opencv-python 4.13.0.92 was installed over opencv-python-headless; "
    "mend it with `pip uninstall -y opencv-python; pip install --force-reinstall "
)


@pytest.fixture
def overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where Python looks first: opencv-python was installed over the headless one there, and does not start."""
    record = tmp_path / "opencv_python-4.13.0.92.dist-info"
    record.mkdir()
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: opencv-python\nVersion: 4.13.0.92\n")
    (tmp_path / "cv2.py").write_text('raise ImportError("libGL.so.1: cannot open shared object file")')
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def raises(error: Exception) -> Callable[[str], object]:
    def import_module(_name: str) -> object:
        raise error

    return import_module


def test_ours_has_what_is_needed() -> None:
    assert opencv.problem() is None


@pytest.mark.usefixtures("overwritten")
@pytest.mark.parametrize(
    ("import_module", "reason"),
    [
        (
            raises(ImportError("libGL.so.1: cannot open shared object file")),
            "libGL.so.1: cannot open shared object file",
        ),
        (raises(AttributeError("_ARRAY_API not found")), "_ARRAY_API not found"),
        (lambda _name: SimpleNamespace(__version__="4.8.0"), "version 4.8.0 has no IMREAD_COLOR_RGB"),
    ],
)
def test_the_sentence_says_which_package_came_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch, import_module: Callable[[str], object], reason: str
) -> None:
    monkeypatch.setattr(importlib, "import_module", import_module)
    unusable = opencv._load()
    with pytest.raises(TriptychError) as caught:
        unusable.imdecode()
    assert str(caught.value).startswith(f"OpenCV cannot be used ({reason}): {SENTENCE}")


def test_commands_end_with_the_sentence_and_doctor_does_not(
    overwritten: Path, server: FakeServer, demo_repository: Path
) -> None:
    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "triptych", *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": str(overwritten)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    images = make_pictures(overwritten / "images", 1)
    detect = run("detect", images, "--save", overwritten / "saved", "--address", server.address)
    assert detect.returncode == 1
    assert detect.stderr.startswith("error: OpenCV cannot be used (libGL")
    assert len(detect.stderr.splitlines()) == 1
    doctor = run("doctor", "--model-repository", demo_repository)
    assert doctor.returncode == 1
    assert SENTENCE in doctor.stdout
    assert not doctor.stderr
