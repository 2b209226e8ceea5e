"""Explain a failed call: one error of the tree for every gRPC status, and whether to try again.

Inference has no side effects, so every call is safe to repeat. It is repeated only where that can help: if a connection
may come back, or a model restarts. It is not repeated if the server is overloaded, the deadline has passed, or the
request was refused. After the death of a model's process it is repeated once: that process may have died of another
request, but a request that sees two of them die is probably what ends them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import grpc

from triptych.errors import (
    AccessDenied,
    DeadlineExceeded,
    InvalidRequest,
    ModelNotFound,
    RequestCancelled,
    RequestError,
    ServerFault,
    ServerOverloaded,
    ServerUnavailable,
)
from triptych.wire.credentials import Credentials
from triptych.wire.handshake import better_explained

CONNECTION_BACKOFF_S = 0.1
"""The first pause after a lost or refused connection."""

PROCESS_BACKOFF_S = 0.6
"""The first pause while a model is loaded. That takes about 1.5 s, and two tries outlast it."""

DEATH_BACKOFF_S = 2.6
"""The pause after the death of a model's process. It is back within about 2 s, and there is only one other try."""

MAX_DEATHS = 1
"""After how many deaths of a model's process a call is tried again."""


@dataclass(frozen=True)
class Target:
    """Whom a call asked, and how long it was ready to wait; for the errors' messages.

    With `credentials`, a connection that failed is tried once more to find out why, which takes up to two seconds.
    """

    address: str
    model: str
    timeout_s: float
    credentials: Credentials | None = None


class Failure(NamedTuple):
    """What a failed call means.

    Attributes:
        error: what to raise.
        backoff_s: the first pause before another try, or None if another try would not help.
    """

    error: RequestError
    backoff_s: float | None = None


_Sentence = Callable[[Target, str], str]


class _Case(NamedTuple):
    """One meaning of a status. Words in the details select it, in lower case; no words match any details."""

    words: tuple[str, ...]
    error: Callable[[str, grpc.StatusCode, str], RequestError]
    sentence: _Sentence
    backoff_s: float | None = None


def _says(problem: str, advice: str = "") -> _Sentence:
    return lambda target, details: (
        problem.format(address=target.address, model=target.model, timeout_s=target.timeout_s)
        + (f": {details}" if details else "")
        + advice.format(address=target.address, model=target.model)
    )


def _plain(sentence: str) -> _Sentence:
    """Return a sentence without details, because gRPC's words would only hide it."""
    return lambda target, _: sentence.format(address=target.address, model=target.model, timeout_s=target.timeout_s)


_ANY = ()
_REFUSED = _says("the server at {address} refused the request")
_FAILED = _says("the server at {address} failed while it worked on the request")
_OVERLOADED = _says("the server at {address} refuses more work for now", "; send less at a time, or try again later")
_DENIED = _says("the server at {address} denied access", "; give it the credentials that it wants")
_NO_MODEL = _says("the server at {address} does not serve the model {model!r}")

# A model that a server knows and does not serve at this moment. After a crash its versions are loaded again, and of a
# server that ends another one takes its place. A model with an unknown name does not come back.
_AWAY = _Case(("no available versions", "not at ready state", "not ready"), ModelNotFound, _NO_MODEL, PROCESS_BACKOFF_S)

_CASES: dict[grpc.StatusCode, tuple[_Case, ...]] = {
    grpc.StatusCode.CANCELLED: (_Case(_ANY, RequestCancelled, _says("the request to {address} was cancelled")),),
    grpc.StatusCode.DEADLINE_EXCEEDED: (
        _Case(
            _ANY,
            DeadlineExceeded,
            _plain("no answer from {address} within {timeout_s:g} s; allow more time, or send less at a time"),
        ),
    ),
    grpc.StatusCode.UNAVAILABLE: (
        _Case(("maximum queue size",), ServerOverloaded, _OVERLOADED),
        _Case(("pool of gpu memory was full",), ServerOverloaded, _OVERLOADED),
        _Case(
            ("request timeout expired",),
            ServerOverloaded,
            _says(
                "the request waited longer in a queue of {address} than the model allows, or than a third of the "
                "{timeout_s:g} s that it had",
                "; send less at a time, or allow more time",
            ),
        ),
        _AWAY,
        _Case(("unknown model",), ModelNotFound, _NO_MODEL),
        _Case(
            ("is restricted",),  # Triton's words for a call that needs the key of `triptych serve`
            AccessDenied,
            _plain(
                "the server at {address} does this only for those who have its key; give it with --server-key FILE, or "
                "run the command on the server's machine, as the user who started it with `triptych serve`"
            ),
        ),
        _Case(
            ("connection refused",),
            ServerUnavailable,
            _plain(
                "no server answers at {address} (connection refused); start one with `triptych serve`, "
                "or give the address with --address"
            ),
            CONNECTION_BACKOFF_S,
        ),
        _Case(
            ("name not found", "address lookup failed", "dns resolution failed"),
            ServerUnavailable,
            _plain("the host of {address} cannot be found; check the address"),
            CONNECTION_BACKOFF_S,
        ),
        _Case(
            ("certificate_verify_failed",),
            ServerUnavailable,
            _says(
                "the certificate of {address} is not trusted",
                "; give the authority that signed it with --ca FILE, and the address by a name that it holds for",
            ),
        ),
        _Case(
            ("wrong_version_number",),
            ServerUnavailable,
            _plain("the server at {address} does not speak TLS; connect without --ca"),
        ),
        _Case(
            ("handshake", "security handshaker"),
            ServerUnavailable,
            _says("the TLS handshake with {address} failed", "; check the files given as credentials"),
        ),
        _Case(
            ("failed parsing http/2", "http1"),
            ServerUnavailable,
            _plain("what answers at {address} does not speak gRPC; Triton's gRPC port is 8001, its HTTP port 8000"),
        ),
        # A port of HTTP or TLS closes the connection, but a server that is going down does too. So try again.
        _Case(
            ("failed to connect to all addresses; last error: unavailable",),
            ServerUnavailable,
            _says(
                "what listens at {address} hangs up on gRPC",
                "; check that it is the gRPC port (Triton's is 8001, HTTP is 8000), and whether it wants TLS",
            ),
            CONNECTION_BACKOFF_S,
        ),
        _Case(_ANY, ServerUnavailable, _says("the server at {address} is not available"), CONNECTION_BACKOFF_S),
    ),
    grpc.StatusCode.INTERNAL: (
        _Case(
            ("is not healthy",),
            partial(ServerFault, process_died=True),
            _says("a model's process died at {address}", "; it is started again within seconds"),
            DEATH_BACKOFF_S,
        ),
        _Case(
            ("unable to open shared memory region",),
            InvalidRequest,
            _plain(
                "the server at {address} cannot open this client's shared memory: it runs on another machine, as "
                "another user, or in a container with memory of its own; go without shared memory"
            ),
        ),
        _Case(_ANY, ServerFault, _FAILED),
    ),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (
        _Case(
            ("larger than max",),
            InvalidRequest,
            _says("a message to or from {address} is larger than allowed", "; send fewer images at a time"),
        ),
        _Case(_ANY, ServerOverloaded, _OVERLOADED),
    ),
    grpc.StatusCode.NOT_FOUND: (
        _AWAY,
        _Case(
            ("shared memory region",),
            ServerUnavailable,
            _says("the server at {address} was started again in the middle of a request"),
            CONNECTION_BACKOFF_S,
        ),
        _Case(_ANY, ModelNotFound, _NO_MODEL),
    ),
    grpc.StatusCode.UNIMPLEMENTED: (
        _Case(
            _ANY, InvalidRequest, _says("the server at {address} does not offer this call", "; is it a Triton server?")
        ),
    ),
    grpc.StatusCode.UNAUTHENTICATED: (_Case(_ANY, AccessDenied, _DENIED),),
    grpc.StatusCode.PERMISSION_DENIED: (_Case(_ANY, AccessDenied, _DENIED),),
    grpc.StatusCode.INVALID_ARGUMENT: (_Case(_ANY, InvalidRequest, _REFUSED),),
    grpc.StatusCode.ALREADY_EXISTS: (_Case(_ANY, InvalidRequest, _REFUSED),),
    grpc.StatusCode.FAILED_PRECONDITION: (_Case(_ANY, InvalidRequest, _REFUSED),),
    grpc.StatusCode.OUT_OF_RANGE: (_Case(_ANY, InvalidRequest, _REFUSED),),
}
_FAULT = (_Case(_ANY, ServerFault, _FAILED),)


def explain(code: grpc.StatusCode, details: str, target: Target) -> Failure:
    """Return what a call that ended with `code` means. A status without a row in the table is a ServerFault."""
    lowered = details.lower()
    cases = _CASES.get(code, _FAULT)
    case = next(case for case in cases if not case.words or any(word in lowered for word in case.words))
    return Failure(case.error(case.sentence(target, details.rstrip(".")), code, details), case.backoff_s)


def is_death(error: RequestError) -> bool:
    """Return whether a model's process died."""
    return isinstance(error, ServerFault) and error.process_died


def died_again(error: RequestError, target: Target) -> ServerFault:
    """Return the error for a request that saw more processes die than it may."""
    return ServerFault(
        f"a model's process died at {target.address} each time it got this request: {error.details.rstrip('.')}; "
        "one of its images may be what ends the process, so send them one at a time, and report the one that fails",
        error.code,
        error.details,
        process_died=True,
    )


def explain_rpc_error(error: grpc.RpcError, target: Target) -> Failure:
    """Explain an error that gRPC raised."""
    # gRPC may also raise the base class, which has no status.
    code = error.code() if hasattr(error, "code") else grpc.StatusCode.UNKNOWN
    details = error.details() if hasattr(error, "details") else str(error)
    failure = explain(code, details or "", target)
    if target.credentials is None or not isinstance(failure.error, ServerUnavailable):
        return failure
    return failure._replace(error=better_explained(failure.error, target.address, target.credentials, target.timeout_s))
