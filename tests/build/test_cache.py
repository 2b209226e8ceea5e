"""The cache: the same content once, other content again."""

from __future__ import annotations

from pathlib import Path

import pytest

from triptych_build.cache import Cache, code_hashes


def test_what_was_made_before_is_not_made_again(tmp_path: Path) -> None:
    cache, calls = Cache(tmp_path / "cache"), list[str]()

    def make(out: Path) -> None:
        calls.append(out.name)
        out.parent.mkdir(exist_ok=True)
        out.write_text("made")

    first, was_there = cache.get("adapted", ".onnx", ["content", {"size": None}], make)
    assert not was_there
    assert (first.suffix, first.name.split("-")[0], first.read_text()) == (".onnx", "adapted", "made")
    assert cache.get("adapted", ".onnx", ["content", {"size": None}], make) == (first, True)
    assert calls == [first.name]
    for step, suffix, made_from in (
        ("adapted", ".onnx", ["other", {"size": None}]),
        ("adapted", ".onnx", ["content", {"size": 640}]),
        ("int8", ".onnx", ["content", {"size": None}]),
        ("adapted", ".plan", ["content", {"size": None}]),
    ):
        other, was_there = cache.get(step, suffix, made_from, make)
        assert not was_there
        assert other != first


def test_what_could_not_be_made_is_tried_again(tmp_path: Path) -> None:
    cache = Cache(tmp_path)

    def fail(out: Path) -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        cache.get("adapted", ".onnx", "content", fail)
    _, was_there = cache.get("adapted", ".onnx", "content", lambda out: out.write_text("made"))
    assert not was_there


def test_new_code_has_other_hashes(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "step.py").write_text("a = 1")
    (tmp_path / "notes.md").write_text("nothing that makes anything")
    before = code_hashes(tmp_path)
    assert len(before) == 1
    (tmp_path / "inner" / "step.py").write_text("a = 2")
    assert code_hashes(tmp_path) != before
