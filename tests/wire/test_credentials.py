"""What a client shows a server, and how it knows the server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from triptych.errors import ContractError
from triptych.wire import access
from triptych.wire.credentials import LOCAL, Credentials


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"ca": "ca", "certificate": "a"}, "certificate needs certificate_key, which is missing"),
        ({"ca": "ca", "certificate_key": "a"}, "certificate_key needs certificate, which is missing"),
        ({"certificate": "a", "certificate_key": "b"}, "certificate needs ca, which is missing"),
        ({"server_name": "triton"}, "server_name needs ca, which is missing"),
    ],
)
def test_what_is_missing(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ContractError, match=words):
        Credentials(**given)


def test_plain_text_by_default() -> None:
    assert LOCAL.for_channel() is None
    assert LOCAL.options() == []


def test_options_of_a_command() -> None:
    credentials = Credentials(ca=Path("ca.pem"), server_name="triton", server_key="a.key")
    assert credentials.options() == ["--ca", "ca.pem", "--server-name", "triton", "--server-key", "a.key"]


def test_the_key_of_a_server_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("secret\n")
    assert Credentials(server_key=tmp_path / "key").headers("far:8001") == ((access.GRPC_HEADER, "secret"),)
    assert LOCAL.headers("far:8001") == ()


@pytest.mark.parametrize("content", [b"", b" \n", b"two\nlines", b"\xff"])
def test_a_file_that_holds_no_key(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(ContractError, match="must hold a key in one line"):
        Credentials(server_key=tmp_path / "key").headers("far:8001")


def test_a_key_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"the file server_key='.*' cannot be read: No such file"):
        Credentials(server_key=tmp_path / "key").headers("far:8001")
