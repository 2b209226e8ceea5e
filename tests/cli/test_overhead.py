"""`triptych overhead`: what it refuses before it measures."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from support.commands import invoke
from triptych.cli.console import USAGE
from triptych.cli.overhead import overhead
from triptych.errors import ImageError, ServerUnavailable

run = partial(invoke, overhead, columns=120)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "a.jpg").write_bytes(b"x")
    return tmp_path


def test_fewer_images_than_rounds(images: Path) -> None:
    result = run("--images", images, "--frames", 5, "--rounds", 6)
    assert result.exit_code == USAGE
    assert "as many frames at least" in result.output


def test_no_images(tmp_path: Path) -> None:
    assert isinstance(run("--images", tmp_path).exception, ImageError)


def test_nobody_answers(images: Path, nobody: str) -> None:
    assert isinstance(run("--images", images, "--address", nobody).exception, ServerUnavailable)
