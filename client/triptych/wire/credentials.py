"""What a client shows a server, and how it knows the server: TLS, and the key of `triptych serve`."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path

import grpc

from triptych.errors import ContractError
from triptych.wire.access import key_headers


@dataclass(frozen=True)
class Credentials:
    """How to connect to a server; by default in plain text. Each path is a file.

    Attributes:
        ca: the authorities that may have signed the server's certificate (PEM). It encrypts the connection. For a
            certificate from a public authority, give the file with the authorities of your system.
        certificate: the client's own certificate (PEM), for a server that asks for one.
        certificate_key: the key of `certificate` (PEM).
        server_name: the name in the server's certificate, where the address has another one, as through a tunnel.
        server_key: the key of a server that `triptych serve` started on another machine, or that is reached through a
            tunnel. The key of a server on this machine is found by its port.

    Raises:
        ContractError: a value is missing that another one needs.
    """

    ca: str | os.PathLike[str] | None = None
    certificate: str | os.PathLike[str] | None = None
    certificate_key: str | os.PathLike[str] | None = None
    server_name: str = ""
    server_key: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        for given, needed in (
            ("certificate", "certificate_key"),
            ("certificate_key", "certificate"),
            ("certificate", "ca"),
            ("server_name", "ca"),
        ):
            if getattr(self, given) and not getattr(self, needed):
                raise ContractError(f"{given} needs {needed}, which is missing; give both, or none")

    @property
    def encrypts(self) -> bool:
        """Whether the connection is encrypted."""
        return self.ca is not None

    def for_channel(self) -> grpc.ChannelCredentials | None:
        """Read the PEM files, and return gRPC's credentials; None for plain text.

        Raises:
            ContractError: a file is missing, cannot be read or is not PEM.
        """
        if not self.encrypts:
            return None
        ca, key, certificate = (self._read_pem(name) for name in ("ca", "certificate_key", "certificate"))
        return grpc.ssl_channel_credentials(ca, key, certificate)

    def headers(self, address: str) -> tuple[tuple[str, str], ...]:
        """Return the headers with which a call to `address` shows the server's key; none if there is no key.

        Raises:
            ContractError: the file of the key cannot be read, or is empty.
        """
        if self.server_key is None:
            return key_headers(address)
        key = self._read("server_key").decode(errors="replace").strip()
        if not key.isascii() or not key.isprintable() or not key:
            raise ContractError(f"server_key={os.fspath(self.server_key)!r} must hold a key in one line, but does not")
        return key_headers(address, key)

    def options(self) -> list[str]:
        """Return the options with which a command of ours connects in the same way."""
        given = ((f.name, getattr(self, f.name)) for f in fields(self))
        return [part for name, value in given if value for part in (f"--{name.replace('_', '-')}", os.fspath(value))]

    def _read_pem(self, name: str) -> bytes | None:
        if getattr(self, name) is None:
            return None
        pem = self._read(name)
        if b"-----BEGIN " not in pem:
            path = os.fspath(getattr(self, name))
            raise ContractError(f"the file {name}={path!r} is not PEM: it has no line -----BEGIN ...-----")
        return pem

    def _read(self, name: str) -> bytes:
        path = Path(getattr(self, name))
        try:
            return path.read_bytes()
        except OSError as error:
            raise ContractError(f"the file {name}={os.fspath(path)!r} cannot be read: {error.strerror}") from error


LOCAL = Credentials()
"""Plain text, and the key that `triptych serve` left on this machine for us."""
