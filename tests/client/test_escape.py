"""What an encoding cannot hold stays legible, and JSON stays JSON."""

from __future__ import annotations

import json
import os

import pytest

from triptych.escape import ESCAPE

NAME = os.fsdecode(b"caf\xe9 \xe2\x82\xac \xf0\x9f\x98\x80.png")


@pytest.mark.parametrize(
    ("encoding", "written"),
    [
        ("utf-8", b"caf\\udce9 \xe2\x82\xac \xf0\x9f\x98\x80.png"),
        ("ascii", b"caf\\udce9 \\u20ac \\ud83d\\ude00.png"),
        ("latin-1", b"caf\\udce9 \\u20ac \\ud83d\\ude00.png"),
    ],
)
def test_a_name_in_json(encoding: str, written: bytes) -> None:
    document = json.dumps([NAME], ensure_ascii=False).encode(encoding, ESCAPE)
    assert document == b'["' + written + b'"]'
    assert json.loads(document.decode(encoding)) == [NAME]


def test_it_is_for_encoding_alone() -> None:
    with pytest.raises(UnicodeDecodeError):
        b"\xff".decode(errors=ESCAPE)
