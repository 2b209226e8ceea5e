"""How the embedded server's gRPC is encrypted: its certificate, checked before it starts, and our own way in.

We watch over a server through its loopback address, which its certificate does not name. So we trust that very
certificate and no other, and ask for a name that it has. A server that asks clients for a certificate gets one from us
as well: it is made for this start, is trusted along with those of the authority, and its key never leaves the server's
temporary directory, which its user alone can read.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from triptych.errors import ServerStartError
from triptych.serving.secret_file import read_file, read_secret
from triptych.wire.credentials import Credentials

_CLIENTS, _OWN, _OWN_KEY = "clients.pem", "own.pem", "own.key"


@dataclass(frozen=True)
class ServerTls:
    """TLS of one server. Each path is a PEM file.

    Attributes:
        certificate: the server's certificate, then those between it and its authority, if there are any.
        key: the key of `certificate`.
        client_ca: the authorities of the clients' certificates. With it, only clients with a certificate are let in.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def check(self) -> None:
        """Make sure that Triton can use the files, since Triton itself says little and serves nobody.

        Raises:
            ServerStartError: a file is missing, cannot be read, has expired, or does not fit the others.
        """
        certificate = _certificates("--tls-certificate", self.certificate)[0]
        if self.client_ca is not None:
            _certificates("--client-ca", self.client_ca)
        secret = read_secret("--tls-key", self.key)
        try:
            key = load_pem_private_key(secret, None)
        except TypeError as error:
            raise ServerStartError(
                f"--tls-key {self.key} has a password, which nobody could give; remove it"
            ) from error
        except ValueError as error:
            raise ServerStartError(f"--tls-key {self.key} must be a private key in PEM form, but is none") from error
        spki = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        if key.public_key().public_bytes(*spki) != certificate.public_key().public_bytes(*spki):
            raise ServerStartError(
                f"--tls-key {self.key} is not the key of the certificate in {self.certificate}; give the two that "
                "belong together, the server's own certificate first"
            )
        _name_of(certificate, self.certificate)

    def options(self, directory: Path) -> list[str]:
        """Return Triton's options. `directory` has what `own_credentials` left there."""
        kind = "--grpc-use-ssl=true" if self.client_ca is None else "--grpc-use-ssl-mutual=true"
        root = [] if self.client_ca is None else ["--grpc-root-cert", str(directory / _CLIENTS)]
        return [kind, "--grpc-server-cert", str(self.certificate), "--grpc-server-key", str(self.key), *root]

    def own_credentials(self, directory: Path) -> Credentials:
        """Return how we ourselves connect to the server, on this machine.

        Args:
            directory: the server's temporary directory, for our own certificate.
        """
        name = _name_of(_certificates("--tls-certificate", self.certificate)[0], self.certificate)
        if self.client_ca is None:
            return Credentials(ca=self.certificate, server_name=name)
        own, own_key = _make_client()
        _write(directory / _OWN, own)
        _write(directory / _OWN_KEY, own_key)
        _write(directory / _CLIENTS, read_file("--client-ca", self.client_ca).rstrip() + b"\n" + own)
        return Credentials(
            ca=self.certificate,
            certificate=directory / _OWN,
            certificate_key=directory / _OWN_KEY,
            server_name=name,
        )


def _certificates(option: str, path: Path) -> list[x509.Certificate]:
    try:
        certificates = x509.load_pem_x509_certificates(read_file(option, path))
    except ValueError as error:
        raise ServerStartError(f"{option} {path} must hold a certificate in PEM form, but holds none") from error
    now = datetime.now(timezone.utc)
    for certificate in certificates:
        begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if now > ends:
            raise ServerStartError(f"{option} {path} expired on {ends:%Y-%m-%d %H:%M} UTC; get a new certificate")
        if now < begins:
            raise ServerStartError(
                f"{option} {path} is valid from {begins:%Y-%m-%d %H:%M} UTC on, and this machine's clock says "
                f"{now:%Y-%m-%d %H:%M}; wait, or set the clock"
            )
    return certificates


def _name_of(certificate: x509.Certificate, path: Path) -> str:
    """Return a host name that a certificate is good for."""
    names: list[str] = []
    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names += [str(name.value) for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    else:
        names += alternatives.get_values_for_type(x509.DNSName)
        names += map(str, alternatives.get_values_for_type(x509.IPAddress))
    if not names:
        raise ServerStartError(
            f"--tls-certificate {path} names no host, so no client would accept it; get one that does"
        )
    return names[0].replace("*", "triptych", 1)


def _make_client() -> tuple[bytes, bytes]:
    """Return a new certificate of a client that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "triptych serve")])
    now = datetime.now(timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=365))  # the clock may be set back
        .not_valid_after(now + timedelta(days=3650))  # the server may run for long
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate.public_bytes(Encoding.PEM), pem


def _write(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)
