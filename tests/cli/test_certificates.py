"""`triptych certificates`, and the options with which every command connects."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from support.commands import triptych
from support.fake_server import FakeServer


def test_what_it_says_is_what_there_is(tmp_path: Path) -> None:
    first = triptych("certificates", tmp_path / "tls", "--host", "triton.example,10.0.0.7")
    assert first.returncode == 0, first.stderr
    for path in (tmp_path / "tls").iterdir():
        assert f"written: {path}" in first.stdout
    assert "for triton.example, 10.0.0.7, localhost, 127.0.0.1, until" in first.stdout
    again = triptych("certificates", tmp_path / "tls", "--days", "7")
    assert f"kept: {tmp_path}/tls/ca.pem" in again.stdout
    assert triptych("certificates", tmp_path / "new", "--host", "a:8001").returncode == 1


def test_a_command_over_mutual_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    triptych("certificates", tmp_path)
    ca, pair = tmp_path / "ca.pem", [(tmp_path / f"server.{kind}").read_bytes() for kind in ("key", "pem")]
    server = FakeServer(tls=grpc.ssl_server_credentials([tuple(pair)], ca.read_bytes(), True)).start()
    image = tmp_path / "image.jpg"
    image.write_bytes(b"abc")
    detect = ("detect", image, "--address", server.address)
    try:
        refused = triptych(*detect)
        assert refused.returncode == 3
        assert "wants TLS" in refused.stderr
        shown = ("--certificate", tmp_path / "client.pem", "--certificate-key", tmp_path / "client.key")
        assert triptych(*detect, "--ca", ca, *shown).returncode == 0
        monkeypatch.setenv("TRIPTYCH_CA", str(ca))
        monkeypatch.setenv("TRIPTYCH_CERTIFICATE", str(tmp_path / "client.pem"))
        incomplete = triptych(*detect)
        assert incomplete.returncode == 2
        assert "certificate needs certificate_key" in incomplete.stderr
        monkeypatch.setenv("TRIPTYCH_CERTIFICATE_KEY", str(tmp_path / "client.key"))
        assert triptych(*detect).returncode == 0
    finally:
        server.stop()
