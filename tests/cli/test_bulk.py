"""`triptych bulk`, as far as it goes without Ray; tests/bulk/test_cluster.py has the rest."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from support.commands import triptych
from support.fake_server import FakeServer

needs_packages = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("ray", "pyarrow"))), reason="needs the packages of the extra `bulk`"
)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"x")
    return folder


def test_packages_that_are_not_there(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triptych.bulk.cluster", None)
    monkeypatch.setattr("triptych.cli.bulk.install_command", lambda extra: f"pip install THE-PACKAGES-OF-{extra}")
    done = triptych("bulk", images, "--out", tmp_path / "out")
    assert done.returncode == 1
    assert "bulk needs Ray and pyarrow" in done.stderr
    assert "pip install THE-PACKAGES-OF-bulk" in done.stderr


@needs_packages
def test_without_a_server_nothing_begins(images: Path, tmp_path: Path, nobody: str) -> None:
    done = triptych("bulk", images, "--out", tmp_path / "out", "--address", nobody)
    assert done.returncode == 3, done.stderr
    assert not (tmp_path / "out").exists()


@needs_packages
def test_what_is_done_needs_no_ray(images: Path, tmp_path: Path, server: FakeServer) -> None:
    from triptych.bulk import job
    from triptych.bulk.places import Place

    out = Place.of(str(tmp_path / "out"))
    job.begin(out, Place.of(str(images)), resume=False, shard_images=1000, score_threshold=None, iou_threshold=None)
    out.write(job.part_name(0), b"")
    words = ("bulk", images, "--out", out.text, "--address", server.address)
    refused = triptych(*words)
    assert refused.returncode == 1
    assert "continue them with --resume" in refused.stderr
    done = triptych(*words, "--resume", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["shards_before"] == 1
    assert f"{out.text} has 1 images in 1 files, 1 of them before" in triptych(*words, "--resume").stdout
