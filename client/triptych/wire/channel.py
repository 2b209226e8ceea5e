"""Connect to a server: its address, headers, and gRPC's settings."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
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
    # A peer that vanishes without a word is noticed within 15 s, and not only after TCP's quarter of an hour. A ping
    # goes only while a call waits, and at most two between two requests: a Triton server takes that many by default.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5000),
    ("grpc.http2.ping_timeout_ms", 5000),  # without it, an unanswered ping counts only after a minute
    # A server that comes back at another address is found: by default a name is looked up again after 30 s at least.
    ("grpc.dns_min_time_between_resolutions_ms", 1000),
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
    if "," in address:
        raise ContractError(f"this is done with one server, but got several addresses ({address}); give one of them")
    return address


def check_addresses(addresses: str | Sequence[str]) -> tuple[str, ...]:
    """Return the addresses of a client's servers, which come in a list or with commas between them.

    Raises:
        ContractError: there is none, one comes twice, or one is no address.
    """
    listed = addresses.split(",") if isinstance(addresses, str) else addresses
    checked = tuple(check_address(address.strip()) for address in listed)
    if not checked or len(set(checked)) < len(checked):
        raise ContractError(f"the addresses must be one or more, each once, but got {addresses!r}")
    return checked


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


def host_of(address: str) -> str:
    """Return the host of an address, IPv6 in brackets; empty for a Unix socket."""
    if _is_socket(address):
        return ""
    return re.sub(r"^(dns:(///?)?|ipv4:|ipv6:)", "", address).rpartition(":")[0]


def is_here(address: str) -> bool:
    """Return whether an address is on this machine: the loopback interface, or a Unix socket."""
    host = host_of(address).strip("[]").lower()
    try:
        return _is_socket(address) or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _is_socket(address: str) -> bool:
    return address.startswith(("unix:", "unix-abstract:"))


def proxy_options(address: str) -> tuple[tuple[str, int], ...]:
    """Return gRPC's options that keep a proxy of the environment away from a server on this machine.

    To other machines gRPC goes as grpc_proxy, https_proxy, http_proxy and no_proxy say.
    """
    return (("grpc.enable_http_proxy", 0),) if is_here(address) else ()


def open_channel(
    module: Any, address: str, credentials: Credentials = LOCAL, options: tuple[tuple[str, int], ...] = ()
) -> Any:
    """Open a channel of `module`, which is `grpc` or `grpc.aio`; `options` go before ours of the same name.

    Raises:
        ContractError: the address is none, or several; or a file of the credentials is missing, cannot be read or is
            not PEM.
    """
    check_address(address)
    name = (("grpc.ssl_target_name_override", credentials.server_name),) if credentials.server_name else ()
    options_and_name = (*{**dict(OPTIONS), **dict(options)}.items(), *proxy_options(address), *name)
    encryption = credentials.for_channel()
    if encryption is None:
        return module.insecure_channel(address, options=options_and_name)
    return module.secure_channel(address, encryption, options=options_and_name)
