"""Find out why a connection failed, by a handshake of our own: gRPC says the same of many causes."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import ssl
from datetime import datetime, timezone
from pathlib import Path

from cryptography import x509

from triptych.errors import RequestError, ServerUnavailable
from triptych.wire.credentials import Credentials

TIMEOUT_S = 2.0

_UNCLEAR = ("failed to connect", "handshake", "socket closed", "connection reset", "broken pipe", "end of stream")
"""Words of gRPC's under which a connection that TLS did not allow may hide, in lower case."""

_CLEAR = ("connection refused", "dns resolution", "name not found", "address lookup")

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"
"""How a client of HTTP/2 begins: a server answers it with its settings."""


def better_explained(error: RequestError, address: str, credentials: Credentials, left_s: float) -> RequestError:
    """Return an error with the reason why no connection could be made, or the same error if that is not about TLS."""
    details = error.details.lower()
    if not any(word in details for word in _UNCLEAR) or any(word in details for word in _CLEAR) or left_s <= 0:
        return error
    reason = find_reason(address, credentials, min(left_s, TIMEOUT_S))
    return ServerUnavailable(reason, error.code, error.details) if reason else error


def find_reason(address: str, credentials: Credentials, timeout_s: float) -> str:
    """Return why a server does not take a connection with these credentials, in a sentence; empty if TLS is not why.

    Args:
        address: host:port.
        credentials: as given to gRPC.
        timeout_s: for the connection and for each step of the handshake.
    """
    match = re.fullmatch(r"(?:dns:(?:///?)?|ipv4:|ipv6:)?\[?([^/]+?)\]?:(\d+)", address)
    if not match:
        return ""
    host, port = match[1], int(match[2])
    context = _context(credentials)
    try:
        with socket.create_connection((host, port), timeout_s) as plain:
            plain.settimeout(timeout_s)
            if not credentials.encrypts:
                with contextlib.suppress(ssl.SSLCertVerificationError), context.wrap_socket(plain):
                    pass
                return (
                    f"the server at {address} wants TLS; give the authority that signed its certificate with --ca FILE"
                )
            with context.wrap_socket(plain, server_hostname=credentials.server_name or host) as encrypted:
                # With TLS 1.3 a server looks at the client's certificate only now.
                encrypted.sendall(_PREFACE)
                with contextlib.suppress(ConnectionError, ssl.SSLEOFError):
                    if encrypted.recv(1):
                        return ""
                return _hung_up(address, credentials)
    except ssl.SSLCertVerificationError as error:
        return _not_trusted(error, address, credentials)
    except ssl.SSLError as error:
        return _refused(error, address, credentials)
    except (OSError, ValueError):
        return ""


def _context(credentials: Credentials) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["h2"])
    if credentials.ca is None:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context
    context.load_verify_locations(os.fspath(credentials.ca))
    if credentials.certificate and credentials.certificate_key:
        context.load_cert_chain(os.fspath(credentials.certificate), os.fspath(credentials.certificate_key))
    return context


_EXPIRED, _NOT_YET = 10, 9  # OpenSSL's X509_V_ERR_...
_OTHER_HOST = (62, 64)


def _not_trusted(error: ssl.SSLCertVerificationError, address: str, credentials: Credentials) -> str:
    if error.verify_code == _EXPIRED:
        return f"the certificate of {address} has expired; renew it on the server, and check the clock of this machine"
    if error.verify_code == _NOT_YET:
        return f"the certificate of {address} is not valid yet; check the clocks of the server and of this machine"
    if error.verify_code in _OTHER_HOST:
        return (
            f"the certificate of {address} is for another host; give the address by a name that it holds for, or that "
            "name with --server-name"
        )
    return (
        f"the certificate of {address} was not signed by the authority in {os.fspath(credentials.ca or '')} "
        f"({error.verify_message}); give the right one with --ca FILE"
    )


def _hung_up(address: str, credentials: Credentials) -> str:
    """Return what it means that a server ends the connection, without a word, once it has seen the client's side."""
    hangs_up = f"the server at {address} hangs up after the TLS handshake, as one does that"
    if credentials.certificate is None:
        return f"{hangs_up} wants a certificate from its clients; give one with --certificate FILE"
    path = Path(credentials.certificate)
    until = x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
    if until < datetime.now(timezone.utc):
        return f"the client's certificate {path} has expired on {until:%Y-%m-%d}, so {address} refuses it; renew it"
    return f"{hangs_up} does not trust the certificate {path}; give one that an authority of the server signed"


def _refused(error: ssl.SSLError, address: str, credentials: Credentials) -> str:
    reason = (error.reason or "").upper()
    if "WRONG_VERSION_NUMBER" in reason or "HTTP_REQUEST" in reason or "RECORD_LAYER" in reason:
        if credentials.encrypts:
            return f"the server at {address} does not speak TLS; connect without --ca"
        return ""
    if not credentials.encrypts:
        # It spoke TLS, but did not like this handshake.
        return (
            f"the server at {address} wants TLS; give the authority that signed its certificate with --ca FILE"
            if "ALERT" in reason
            else ""
        )
    # An alert about the client's certificate, or about its absence.
    return _hung_up(address, credentials) if "ALERT" in reason else ""
