"""Where the embedded server listens, and for whom."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from triptych.errors import ContractError
from triptych.serving.preflight import LOOPBACK, Ports

if TYPE_CHECKING:
    from triptych.serving.tls import ServerTls  # which takes cryptography with it


@dataclass(frozen=True)
class Listening:
    """Where one server listens.

    Attributes:
        host: the IP address of the interface; 0.0.0.0 or :: for all of them.
        ports: the TCP ports; that of HTTP only if it serves HTTP.
        http: whether it serves HTTP, which is never encrypted.
        tls: how gRPC is encrypted; None: it is not.

    Raises:
        ContractError: `host` is no IP address.
    """

    host: str = LOOPBACK
    ports: Ports = field(default_factory=Ports)
    http: bool = False
    tls: ServerTls | None = None

    def __post_init__(self) -> None:
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            raise ContractError(f"host must be an IP address such as 0.0.0.0, but got {self.host!r}") from None

    @property
    def is_open(self) -> bool:
        """Whether other machines may reach it."""
        return not ipaddress.ip_address(self.host).is_loopback

    @property
    def grpc_address(self) -> str:
        """`HOST:PORT` for gRPC clients on this machine."""
        return f"{self._from_here}:{self.ports.grpc}"

    @property
    def http_url(self) -> str:
        """The URL that HTTP clients on this machine start from; empty if HTTP is not served."""
        return f"http://{self._from_here}:{self.ports.http}" if self.http else ""

    @property
    def metrics_url(self) -> str:
        """The URL of the metrics, for a Prometheus on this machine."""
        return f"http://{self._from_here}:{self.ports.metrics}/metrics"

    def options(self, restriction: str) -> list[str]:
        """Return Triton's options.

        Args:
            restriction: what it does only for who has its key, and the key.
        """
        # Triton's HTTP server wants the kind of an IPv6 address, its gRPC server wants brackets around it.
        host, grpc_host = (f"ipv6:{self.host}", f"[{self.host}]") if ":" in self.host else (self.host, self.host)
        return [
            *("--grpc-address", grpc_host, "--grpc-port", str(self.ports.grpc)),
            *("--metrics-address", host, "--metrics-port", str(self.ports.metrics)),
            f"--grpc-restricted-protocol={restriction}",
            *(
                ("--http-address", host, "--http-port", str(self.ports.http), f"--http-restricted-api={restriction}")
                if self.http
                else ("--allow-http=false",)
            ),
        ]

    @property
    def _from_here(self) -> str:
        address = ipaddress.ip_address(self.host)
        if address.is_unspecified:
            return LOOPBACK if address.version == 4 else "[::1]"
        return f"[{self.host}]" if address.version == 6 else self.host
