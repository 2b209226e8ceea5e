"""Pictures, a video and runs for the examples and for what the documents say."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from triptych_demo.detector.boards import generate

FRAMES = 12
SIZE = 480


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of circuit boards, each with defects."""
    folder = tmp_path_factory.mktemp("examples") / "boards"
    folder.mkdir()
    for index in range(4):
        (folder / f"board-{index}.jpg").write_bytes(generate(7, index).jpeg)
    return folder


@pytest.fixture(scope="session")
def video(pictures: Path) -> Path:
    """Twelve frames, ten a second, of a camera that moves over a board."""
    path = pictures.parent / "boards.avi"
    board = cv2.imread(str(pictures / "board-0.jpg"))
    assert board is not None
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (SIZE, SIZE))
    for frame in range(FRAMES):
        writer.write(np.ascontiguousarray(board[80 : 80 + SIZE, 8 * frame : 8 * frame + SIZE]))
    writer.release()
    return path
