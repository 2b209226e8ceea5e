"""Where the key of a server is, who finds it, and who does not."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from triptych.wire import access


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "triptych"


def test_the_key_is_found_by_the_port_and_is_for_its_user_alone(state: Path) -> None:
    path = access.write_key(8001, "secret")
    assert path == access.key_path(8001) == state / "server-8001.key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in state.iterdir()] == [path.name]
    for address in ("127.0.0.1:8001", "localhost:8001"):
        assert access.key_headers(address) == (("triton-grpc-protocol-triptych-key", "secret"),)


@pytest.mark.parametrize("address", ["127.0.0.1:8002", "camera:8001", "unix:/tmp/8001", ""])
def test_other_servers_are_shown_no_key(address: str) -> None:
    access.write_key(8001, "secret")
    assert access.key_headers(address) == ()


def test_a_key_may_be_given() -> None:
    assert access.key_headers("camera:8001", "mine")[0][1] == "mine"


def test_a_key_of_another_user_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    access.write_key(8001, "secret")
    monkeypatch.setattr(os, "getuid", lambda: 4321)
    assert access.read_key("127.0.0.1:8001") == ""


def test_a_newer_servers_key_stays() -> None:
    path = access.write_key(8001, "old")
    access.write_key(8001, "new")
    access.remove_key(path, "old")
    assert access.read_key("127.0.0.1:8001") == "new"
    access.remove_key(path, "new")
    assert not path.exists()
    access.remove_key(path, "new")


def test_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(_: object) -> None:
        raise KeyError

    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    assert access.state_directories() == [Path(f"/tmp/triptych-{os.getuid()}")]


def test_a_home_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(access, "state_directories", lambda: [tmp_path / "file" / "state", tmp_path / "other"])
    assert access.write_key(8001, "secret") == tmp_path / "other" / "server-8001.key"
    assert access.read_key("127.0.0.1:8001") == "secret"


def test_a_directory_of_somebody_else(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state.mkdir()
    monkeypatch.setattr(access, "state_directories", lambda: [state])
    monkeypatch.setattr(os, "getuid", lambda: 4321)
    with pytest.raises(PermissionError, match="belongs to somebody else"):
        access.write_key(8001, "secret")
