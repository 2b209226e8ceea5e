"""Certificates for development: an authority of one's own, and what it signs for a server and for clients."""

from __future__ import annotations

import ipaddress
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from triptych.errors import ContractError
from triptych.files import atomic_write

ALWAYS = ("localhost", "127.0.0.1")
"""The hosts that every server's certificate is for."""

CA_DAYS = 3650

_SKEW = timedelta(minutes=5)
"""How far the clocks of two machines may differ."""


@dataclass(frozen=True)
class Identity:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class Made:
    """What `make` did.

    Attributes:
        written: the files, in the order in which they were written.
        renewed: whether the authority was there before, so that clients go on trusting it.
        hosts: what the server's certificate is for.
        until: when the certificates of server and client end.
    """

    written: tuple[Path, ...]
    renewed: bool
    hosts: tuple[str, ...]
    until: datetime


def make(directory: Path, hosts: Sequence[str] = (), days: int = 365, now: datetime | None = None) -> Made:
    """Make the certificates and keys of an authority, a server and a client: `ca`, `server` and `client`.

    An authority that the directory has from before is kept, and the other two are renewed.

    Args:
        directory: where they go; it is made if need be.
        hosts: names and IP addresses of the server, besides `ALWAYS`.
        days: how long the server's and the client's certificates hold, at most as long as the authority's.
        now: when they begin to hold.

    Raises:
        ContractError: a host is no name and no IP address, or the directory has files that are not to be overwritten.
        OSError: a file cannot be written.
    """
    now = now or datetime.now(timezone.utc)
    hosts = tuple(dict.fromkeys((*hosts, *ALWAYS)))
    names = [_general_name(host) for host in hosts]
    directory.mkdir(parents=True, exist_ok=True)
    authority = _read_authority(directory, now)
    written: list[Path] = []
    renewed = authority is not None
    if authority is None:
        authority = _new_authority(now)
        written += _write(directory, "ca", authority)
    until = min(now + timedelta(days=days), authority.certificate.not_valid_after_utc)
    server = _sign(authority, "triptych server", names, ExtendedKeyUsageOID.SERVER_AUTH, now, until)
    client = _sign(authority, "triptych client", [], ExtendedKeyUsageOID.CLIENT_AUTH, now, until)
    written += [*_write(directory, "server", server), *_write(directory, "client", client)]
    return Made(tuple(written), renewed, hosts, until)


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    if re.fullmatch(
        r"(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*", host
    ):
        return x509.DNSName(host)
    raise ContractError(
        f"a host must be a name such as triton.example or an IP address, without a port, but got {host!r}"
    )


def _read_authority(directory: Path, now: datetime) -> Identity | None:
    """Return the authority that the directory has; None if it has no such files at all."""
    paths = {
        name: directory / name for name in ("ca.pem", "ca.key", "server.pem", "server.key", "client.pem", "client.key")
    }
    there = {name for name, path in paths.items() if path.exists()}
    if not there:
        return None
    if not {"ca.pem", "ca.key"} <= there:
        raise ContractError(
            f"{directory} has {', '.join(sorted(there))}, but not both of ca.pem and ca.key, so nothing there is "
            "overwritten; give another directory"
        )
    try:
        certificate = x509.load_pem_x509_certificate(paths["ca.pem"].read_bytes())
        key = load_pem_private_key(paths["ca.key"].read_bytes(), None)
    except (ValueError, TypeError) as error:
        raise ContractError(
            f"{directory} has an authority that cannot be read ({error}); give another directory"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise ContractError(f"{paths['ca.key']} is not the key of {paths['ca.pem']}; give another directory")
    if certificate.not_valid_after_utc <= now:
        raise ContractError(
            f"the authority in {directory} ended on {certificate.not_valid_after_utc:%Y-%m-%d}; make all anew in "
            "another directory, and give its ca.pem to every client"
        )
    for name in sorted(there & {"server.pem", "client.pem"}):
        _check_signed(paths[name], certificate)
    return Identity(certificate, key)


def _check_signed(path: Path, authority: x509.Certificate) -> None:
    try:
        x509.load_pem_x509_certificate(path.read_bytes()).verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise ContractError(
            f"{path} was not signed by the authority next to it, so it is not overwritten; give another directory"
        ) from error


def _new_authority(now: datetime) -> Identity:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("triptych development authority")
    usage = _usage(signs_certificates=True)
    certificate = (
        _builder(name, name, key, now, now + timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    return Identity(certificate, key)


def _sign(
    authority: Identity,
    name: str,
    hosts: list[x509.GeneralName],
    purpose: x509.ObjectIdentifier,
    now: datetime,
    until: datetime,
) -> Identity:
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = authority.certificate
    builder = (
        _builder(_name(name), issuer.subject, key, now, until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
    )
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
    return Identity(builder.sign(authority.key, hashes.SHA256()), key)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, until: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write(directory: Path, name: str, identity: Identity) -> list[Path]:
    """Write a certificate and its key, which its user alone can read."""
    certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
    descriptor, aside_key = tempfile.mkstemp(dir=directory, prefix=f".{key.name}-")  # of mode 0600
    with os.fdopen(descriptor, "wb") as file:
        file.write(identity.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    Path(aside_key).replace(key)
    with atomic_write(certificate) as aside:
        aside.write_bytes(identity.certificate.public_bytes(Encoding.PEM))
    return [certificate, key]
