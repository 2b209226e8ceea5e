"""What every command does with text that a terminal or a pipe cannot show."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.fake_server import FakeServer
from support.videos import make_pictures

LATIN_1 = os.fsdecode(b"caf\xe9.png")


def detect(server: FakeServer, encoding: str, *arguments: object) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "triptych", "detect", *map(str, arguments), "--address", server.address]
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "400"}
    return subprocess.run(command, env=environment, capture_output=True, check=False)


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """Two images: the name of one is not UTF-8."""
    picture = make_pictures(tmp_path, 1) / "000.png"
    (tmp_path / "café.png").touch()
    return [picture.rename(tmp_path / LATIN_1), tmp_path / "café.png"]


def test_names_are_escaped(server: FakeServer, images: list[Path]) -> None:
    done = detect(server, "ascii", *images)
    assert done.returncode == 1, "one of them is empty"
    assert not done.stderr
    assert "caf\\udce9.png" in done.stdout.decode("ascii")
    assert "caf\\u00e9.png" in done.stdout.decode("ascii")


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_json_is_utf_8_and_names_the_files(server: FakeServer, images: list[Path], encoding: str) -> None:
    done = detect(server, encoding, "--json", "--save", images[0].parent / LATIN_1[:4], *images)
    document = json.loads(done.stdout.decode("utf-8"))
    assert [result["source"] for result in document] == list(map(str, images))
    assert (images[0].parent / LATIN_1[:4] / LATIN_1).with_suffix(".jpg").is_file()
