"""Boards to compare runtimes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from triptych_demo.detector.boards import coco_document, generate


@pytest.fixture(scope="package")
def board_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight held-out boards with COCO labels."""
    directory = tmp_path_factory.mktemp("boards")
    named = [(f"{index}.jpg", generate(seed=1000, index=index)) for index in range(8)]
    for name, board in named:
        (directory / name).write_bytes(board.jpeg)
    (directory / "instances.json").write_text(json.dumps(coco_document(named)))
    return directory
