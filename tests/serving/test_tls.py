"""The certificate of a server, before it starts."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from support.certificates import Authority
from triptych.errors import ServerStartError
from triptych.serving.tls import ServerTls


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def refusal(tls: ServerTls) -> str:
    with pytest.raises(ServerStartError) as caught:
        tls.check()
    return str(caught.value)


@pytest.mark.parametrize(("hosts", "name"), [(("a.example", "::1"), "a.example"), (("10.0.0.1",), "10.0.0.1")])
def test_we_ask_for_a_name_that_the_certificate_has(
    authority: Authority, tmp_path: Path, hosts: tuple[str, ...], name: str
) -> None:
    tls = ServerTls(*authority.issue("server", *hosts))
    tls.check()
    own = tls.own_credentials(tmp_path)
    assert (own.ca, own.server_name, own.certificate) == (tls.certificate, name, None)
    assert tls.options(tmp_path)[0] == "--grpc-use-ssl=true"


def test_a_wildcard_and_a_common_name(authority: Authority, tmp_path: Path) -> None:
    assert ServerTls(*authority.issue("a", "*.example")).own_credentials(tmp_path).server_name == "triptych.example"
    assert ServerTls(*authority.issue("b.example")).own_credentials(tmp_path).server_name == "b.example"


def test_our_own_certificate_stays_in_the_directory(authority: Authority, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    tls = ServerTls(*authority.issue("server", "a.example"), authority.certificate)
    tls.check()
    own = tls.own_credentials(scratch)
    assert {path.stat().st_mode & 0o777 for path in scratch.iterdir()} == {0o600}
    assert tls.options(scratch)[0] == "--grpc-use-ssl-mutual=true"
    root = Path(tls.options(scratch)[-1]).read_text()
    assert root.startswith(authority.certificate.read_text())
    assert Path(str(own.certificate)).read_text() in root


def test_files_that_are_not_there_or_something_else(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.issue("server", "a.example")
    assert "--tls-certificate" in refusal(ServerTls(tmp_path / "none", key))
    assert "cannot be read: No such file" in refusal(ServerTls(certificate, tmp_path / "none"))
    assert "must hold a certificate in PEM form" in refusal(ServerTls(key, key))
    assert "must be a private key in PEM form" in refusal(ServerTls(certificate, _private(certificate)))
    assert "--client-ca" in refusal(ServerTls(certificate, key, tmp_path / "none"))


def test_a_certificate_out_of_its_time(authority: Authority) -> None:
    old = ServerTls(*authority.issue("old", "a.example", ends=timedelta(hours=-1)))
    assert "expired on 2" in refusal(old)
    assert "the clock" in refusal(ServerTls(*authority.issue("new", "a.example", begins=timedelta(hours=1))))
    good = authority.issue("good", "a.example")
    assert "--client-ca" in refusal(ServerTls(*good, old.certificate))


def test_a_key_of_another_certificate(authority: Authority) -> None:
    certificate, _ = authority.issue("one", "a.example")
    _, key = authority.issue("two", "a.example")
    assert "is not the key of the certificate in" in refusal(ServerTls(certificate, key))


def test_a_key_that_others_can_read(authority: Authority) -> None:
    tls = ServerTls(*authority.issue("server", "a.example"))
    tls.key.chmod(0o440)  # as Kubernetes has it
    tls.check()
    tls.key.chmod(0o444)
    assert f"chmod 600 {tls.key}" in refusal(tls)


def test_a_key_with_a_password(authority: Authority) -> None:
    tls = ServerTls(*authority.issue("server", "a.example"))
    key = load_pem_private_key(tls.key.read_bytes(), None)
    secret = BestAvailableEncryption(b"secret")
    tls.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, secret))
    assert "has a password" in refusal(tls)


def _private(path: Path) -> Path:
    path.chmod(0o600)
    return path
