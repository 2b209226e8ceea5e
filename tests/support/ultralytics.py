"""Files of Ultralytics, made up: it cannot be had here (AGPL-3.0)."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

PLAN = b"ftrt" + bytes(range(256)) * 20
METADATA: dict[str, Any] = {
    "description": "a model",
    "date": "2026-11-01T10:00:00",
    "task": "detect",
    "batch": 8,
    "imgsz": [480, 640],
    "names": {"0": "open", "1": "short", "10": "burr"},
}


def make_engine(directory: Path, metadata: dict[str, Any] = METADATA) -> Path:
    """Write a plan behind a header."""
    header = json.dumps(metadata).encode()
    path = directory / "best.engine"
    path.write_bytes(len(header).to_bytes(4, "little") + header + PLAN)
    return path


def make_checkpoint(directory: Path) -> Path:
    """Write what looks like a checkpoint."""
    path = directory / "best.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("best/data.pkl", b"weights")
    return path
