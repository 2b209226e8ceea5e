"""Connect to a server: its address, headers, and gRPC's settings."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Any

from triptych.errors import ContractError
from triptych.wire.credentials import LOCAL, Credentials

OPTIONS: tuple[tuple[str, int], ...] = (
    # A batch of large images is far beyond gRPC's 4 MB. Both sides check the contract's limits.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # By default gRPC waits up to two minutes before it tries to connect again.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Despite its name, this is how long one attempt to connect may take.
    ("grpc.min_reconnect_backoff_ms", 5000),
    # A peer that vanishes without a word is noticed once it has not acknowledged data for 5 s, and not only after TCP's
    # quarter of an hour. Pings are no more frequent than a Triton server allows by default.
    ("grpc.keepalive_time_ms", 300_000),
    ("grpc.keepalive_timeout_ms", 5000),
    # Each client has its own connection, because a new client must not inherit another one's back-off.
    ("grpc.use_local_subchannel_pool", 1),
)


def check_address(address: str) -> str:
    """Return `address` if it is host:port (or another form with a colon that gRPC knows, such as unix:/path).

    Raises:
        ContractError: the address is a URL, or has no port.
    """
    if re.match(r"(https?|grpcs?)://", address) or ":" not in address:
        raise ContractError(f"the address must be host:port, such as 127.0.0.1:8001, but got {address!r}")
    return address


def metadata(headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return headers as gRPC sends them, with their names in lower case.

    Raises:
        ContractError: gRPC cannot send a name or a value.
    """
    pairs = tuple((name.lower(), value) for name, value in headers.items())
    for name, value in pairs:
        if not re.fullmatch(r"[0-9a-z_.-]+", name) or name.endswith("-bin"):
            raise ContractError(
                f"a header's name must be letters, digits, '-', '_' and '.', and not end in '-bin', but got {name!r}"
            )
        # The message leaves the value out, because it may be a secret.
        if not re.fullmatch(r"[\x20-\x7e]*", value):
            raise ContractError(f"the value of header {name!r} must be printable ASCII, but is not")
    return pairs


def is_here(address: str) -> bool:
    """Return whether an address is on this machine: the loopback interface, or a Unix socket."""
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    host = re.sub(r"^(dns:(///?)?|ipv4:|ipv6:)", "", address).rpartition(":")[0].strip("[]").lower()
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def proxy_options(address: str) -> tuple[tuple[str, int], ...]:
    """Return gRPC's options that keep a proxy of the environment away from a server on this machine.

    To other machines gRPC goes as grpc_proxy, https_proxy, http_proxy and no_proxy say.
    """
    return (("grpc.enable_http_proxy", 0),) if is_here(address) else ()


def open_channel(
    module: Any, address: str, credentials: Credentials = LOCAL, options: tuple[tuple[str, int], ...] = OPTIONS
) -> Any:
    """Open a channel of `module`, which is `grpc` or `grpc.aio`.

    Raises:
        ContractError: a file of the credentials is missing, cannot be read or is not PEM.
    """
    name = (("grpc.ssl_target_name_override", credentials.server_name),) if credentials.server_name else ()
    options_and_name = (*options, *proxy_options(address), *name)
    encryption = credentials.for_channel()
    if encryption is None:
        return module.insecure_channel(address, options=options_and_name)
    return module.secure_channel(address, encryption, options=options_and_name)
