"""The development authority, and what it signs."""

from __future__ import annotations

import ssl
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509

from triptych.certificates import CA_DAYS, make
from triptych.errors import ContractError


def load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_what_is_written(tmp_path: Path) -> None:
    made = make(tmp_path / "new", ["triton.example", "10.0.0.7"], days=30)
    assert sorted(path.name for path in made.written) == sorted(path.name for path in (tmp_path / "new").iterdir())
    assert not made.renewed
    assert made.hosts == ("triton.example", "10.0.0.7", "localhost", "127.0.0.1")
    for key in (tmp_path / "new").glob("*.key"):
        assert key.stat().st_mode & 0o777 == 0o600
    server = load(tmp_path / "new" / "server.pem")
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["triton.example", "localhost"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.7", "127.0.0.1"]
    for name in ("server", "client"):
        load(tmp_path / "new" / f"{name}.pem").verify_directly_issued_by(load(tmp_path / "new" / "ca.pem"))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "new" / f"{name}.pem", tmp_path / "new" / f"{name}.key")


def test_the_authority_is_kept_and_the_rest_renewed(tmp_path: Path) -> None:
    make(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    made = make(tmp_path, days=10)
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert made.renewed
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"server.pem", "server.key", "client.pem", "client.key"}


def test_nothing_outlives_its_authority(tmp_path: Path) -> None:
    made = make(tmp_path, days=2 * CA_DAYS)
    assert made.until <= load(tmp_path / "ca.pem").not_valid_after_utc


@pytest.mark.parametrize("host", ["triton:8001", "a b", "", "http://a", "-a", "256.0.0.1:1"])
def test_a_host_that_is_none(host: str, tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="a host must be a name"):
        make(tmp_path / "new", [host])
    assert not (tmp_path / "new").exists()


def test_what_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "server.key").write_text("mine")
    with pytest.raises(ContractError, match=r"has server\.key, but not both of ca\.pem and ca\.key"):
        make(tmp_path)
    (tmp_path / "server.key").unlink()
    make(tmp_path)
    other = tmp_path / "other"
    make(other)
    (tmp_path / "server.pem").write_bytes((other / "server.pem").read_bytes())
    with pytest.raises(ContractError, match="was not signed by the authority next to it"):
        make(tmp_path)
    (tmp_path / "ca.key").write_bytes((other / "ca.key").read_bytes())
    with pytest.raises(ContractError, match="is not the key of"):
        make(tmp_path)
    (tmp_path / "ca.key").write_text("damaged")
    with pytest.raises(ContractError, match="cannot be read"):
        make(tmp_path)


def test_an_authority_that_has_ended(tmp_path: Path) -> None:
    make(tmp_path, now=datetime.now(timezone.utc) - timedelta(days=CA_DAYS + 1))
    with pytest.raises(ContractError, match="ended on"):
        make(tmp_path)
