"""A model repository whose files are there, though nothing is in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from triptych.serving import preflight


def _write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    repository = tmp_path / "models"
    _write(repository / "detection" / "config.pbtxt", 'platform: "ensemble"')
    for model in ("preprocess", "detector", "postprocess"):
        _write(repository / model / "config.pbtxt", 'backend: "python"')
        _write(repository / model / "1" / "model.py")
    preflight.check_repository(repository)
    return repository
