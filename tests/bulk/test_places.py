"""Folders and object stores: what is listed, read and written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow", reason="needs the packages of the extra `bulk`")

from pyarrow import fs

from triptych.bulk import places
from triptych.bulk.places import Place
from triptych.contract import MAX_ENCODED_BYTES
from triptych.errors import ContractError, ImageError


@pytest.fixture
def store() -> Place:
    """An object store: pyarrow's own stand-in, which lives in memory."""
    return Place("mock://bucket/photos?option=1", fs._MockFileSystem(), "bucket/photos")


def test_a_folder_is_listed_with_those_within_and_without_what_is_hidden(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "notes.txt", ".hidden.jpg", "in/c.jpg", "in/.thumbs/d.jpg", "in/e.jpg/f.webp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    assert Place.of(str(tmp_path)).images() == ["a.png", "b.JPG", "in/c.jpg", "in/e.jpg/f.webp"]


def test_the_name_of_a_file_may_have_any_bytes(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg")).write_bytes(b"x")
    place = Place.of(str(tmp_path))
    [path] = place.images()
    assert os.fsencode(path) == b"caf\xe9.jpg"
    assert place.read(path) == b"x"


def test_a_relative_folder_is_found_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Place.of("photos").text == Place.of("photos").name == str(tmp_path / "photos")


def test_no_such_file_system() -> None:
    with pytest.raises(ContractError, match="nope://bucket cannot be opened: "):
        Place.of("nope://bucket")


def test_no_secret_of_a_uri_is_shown() -> None:
    place = Place("s3://key:secret@bucket/photos/?endpoint_override=x&token=secret", None, "bucket/photos")
    assert place.name == "s3://bucket/photos"
    with pytest.raises(ContractError, match="nope://bucket/x cannot be opened") as caught:
        Place.of("nope://key:secret@bucket/x?token=secret")
    assert "secret" not in str(caught.value)


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="cannot be listed: No such file or directory"):
        Place.of(str(tmp_path / "nothing")).images()


def test_what_is_no_readable_file_says_why(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nothing")
    (tmp_path / "empty.jpg").touch()
    place = Place.of(str(tmp_path))
    for path, reason in {
        "pipe.jpg": "not a regular file",
        "gone.jpg": "there is no file",
        "empty.jpg": "empty",
    }.items():
        with pytest.raises(ImageError, match=reason):
            place.read(path)


def test_an_object_store_is_written_listed_and_read(store: Place) -> None:
    store.write("in/a.jpg", b"one")
    store.write("in/a.jpg", b"two")
    store.write("b.txt", b"")
    assert store.names() == {"in", "b.txt"}
    assert store.images() == ["in/a.jpg"]
    assert store.read("in/a.jpg") == b"two"
    assert store.name == "mock://bucket/photos"


def test_a_write_that_fails_leaves_nothing(store: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def __getattr__(self, name: str) -> Any:
            return getattr(store.store, name)

        def move(self, _source: str, _target: str) -> None:
            raise OSError("no space left")

    broken = Place(store.text, Full(), store.root)
    with pytest.raises(OSError, match="no space left"):
        broken.write("part-00000.parquet", b"x")
    assert "part-00000.parquet" not in store.names()


def test_a_place_that_is_not_there_has_no_names(store: Place, tmp_path: Path) -> None:
    assert store.names() == Place.of(str(tmp_path / "nothing")).names() == set()


class Shaky:
    """A store whose reads fail a number of times."""

    def __init__(self, store: Any, failures: int, error: type[OSError] = OSError) -> None:
        self.store, self.failures, self.error = store, failures, error

    def open_input_stream(self, path: str, **options: Any) -> Any:
        self.failures -= 1
        if self.failures >= 0:
            raise self.error("SlowDown: please reduce your request rate")
        return self.store.open_input_stream(path, **options)


def test_an_object_store_that_fails_for_a_moment_is_read_again(store: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "READ_PAUSES_S", (0.0, 0.0))
    store.write("a.jpg", b"x")
    assert Place(store.text, Shaky(store.store, 2), store.root).read("a.jpg") == b"x"
    with pytest.raises(ImageError, match=r"mock://bucket/photos/a.jpg cannot be read: SlowDown"):
        Place(store.text, Shaky(store.store, 3), store.root).read("a.jpg")
    with pytest.raises(ImageError, match="cannot be read"):
        Place(store.text, Shaky(store.store, 1, PermissionError), store.root).read("a.jpg")


def test_objects_that_are_gone_empty_or_too_large(store: Place) -> None:
    store.write("large.jpg", bytes(MAX_ENCODED_BYTES + 1))
    store.write("empty.jpg", b"")
    for path, reason in {"large.jpg": "at most", "gone.jpg": "there is no file", "empty.jpg": "empty"}.items():
        with pytest.raises(ImageError, match=reason):
            store.read(path)
