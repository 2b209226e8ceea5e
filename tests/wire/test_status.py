"""No error of gRPC gets through: every status becomes one error of the tree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from grpc import StatusCode as Code

from support.calls import METHOD_NAMES, METHODS, calls
from support.fake_server import FakeServer, Fault
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
from triptych.wire.status import (
    CONNECTION_BACKOFF_S,
    DEATH_BACKOFF_S,
    PROCESS_BACKOFF_S,
    Target,
    explain,
    explain_rpc_error,
)

TARGET = Target("camera:8001", "detection", 2.5)

BY_STATUS = {
    Code.OK: ServerFault,
    Code.CANCELLED: RequestCancelled,
    Code.UNKNOWN: ServerFault,
    Code.INVALID_ARGUMENT: InvalidRequest,
    Code.DEADLINE_EXCEEDED: DeadlineExceeded,
    Code.NOT_FOUND: ModelNotFound,
    Code.ALREADY_EXISTS: InvalidRequest,
    Code.PERMISSION_DENIED: AccessDenied,
    Code.UNAUTHENTICATED: AccessDenied,
    Code.RESOURCE_EXHAUSTED: ServerOverloaded,
    Code.FAILED_PRECONDITION: InvalidRequest,
    Code.ABORTED: ServerFault,
    Code.OUT_OF_RANGE: InvalidRequest,
    Code.UNIMPLEMENTED: InvalidRequest,
    Code.INTERNAL: ServerFault,
    Code.UNAVAILABLE: ServerUnavailable,
    Code.DATA_LOSS: ServerFault,
}

# What Triton 2.51 and gRPC 1.85 were seen to say, and what the client makes of it.
BY_DETAILS: list[tuple[Code, str, type[RequestError], float | None, str]] = [
    (Code.UNAVAILABLE, "Exceeds maximum queue size", ServerOverloaded, None, "refuses more work"),
    (
        Code.UNAVAILABLE,
        "in ensemble 'detection', Exceeds maximum queue size",
        ServerOverloaded,
        None,
        "try again later",
    ),
    (
        Code.UNAVAILABLE,
        "in ensemble 'detection', pixels came through the host's memory: Triton's pool of GPU memory was full",
        ServerOverloaded,
        None,
        "try again later",
    ),
    (
        Code.UNAVAILABLE,
        "Request timeout expired",
        ServerOverloaded,
        None,
        "waited longer in a queue of camera:8001 than the model allows, or than a third of the 2.5 s that it had",
    ),
    (
        Code.UNAVAILABLE,
        "Request for unknown model: 'detection' has no available versions",
        ModelNotFound,
        PROCESS_BACKOFF_S,
        "does not serve the model 'detection'",
    ),
    (
        Code.UNAVAILABLE,
        "This protocol is restricted, expecting header 'triton-grpc-protocol-triptych-key'",
        AccessDenied,
        None,
        "as the user who started it with `triptych serve`",
    ),
    (
        Code.NOT_FOUND,
        "Request for unknown model: 'detection' has no available versions",
        ModelNotFound,
        PROCESS_BACKOFF_S,
        "does not serve the model 'detection'",
    ),
    (
        Code.NOT_FOUND,
        "Request for unknown model: 'detection' is not found",
        ModelNotFound,
        None,
        "does not serve the model 'detection'",
    ),
    (Code.UNAVAILABLE, "Request for unknown model: 'x' is not found", ModelNotFound, None, "does not serve"),
    (
        Code.INTERNAL,
        "in ensemble 'detection', Stub process 'preprocess_0' is not healthy.",
        ServerFault,
        DEATH_BACKOFF_S,
        "a model's process died",
    ),
    (Code.INTERNAL, "out of memory", ServerFault, None, "out of memory"),
    (
        Code.UNAVAILABLE,
        "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Failed to connect to remote host: "
        "Connection refused",
        ServerUnavailable,
        CONNECTION_BACKOFF_S,
        "no server answers at camera:8001 (connection refused); start one with `triptych serve`",
    ),
    (
        Code.UNAVAILABLE,
        "errors resolving camera:8001: [field:hostname lookup error:address lookup failed for camera:8001: "
        "Domain name not found]",
        ServerUnavailable,
        CONNECTION_BACKOFF_S,
        "the host of camera:8001 cannot be found",
    ),
    (
        Code.UNAVAILABLE,
        "failed to connect to all addresses; last error: UNAVAILABLE: ipv4:127.0.0.1:8000: Failed parsing HTTP/2 "
        "(Expected SETTINGS frame as the first frame, got frame type 79)",
        ServerUnavailable,
        None,
        "Triton's gRPC port is 8001",
    ),
    (
        Code.UNAVAILABLE,
        "Tls handshake failed (TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: error:1000007d:SSL "
        "routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: self signed certificate: OK",
        ServerUnavailable,
        None,
        "is not trusted",
    ),
    (Code.UNAVAILABLE, "Tls handshake failed: WRONG_VERSION_NUMBER", ServerUnavailable, None, "does not speak TLS"),
    (Code.UNAVAILABLE, "Failed to create security handshaker.", ServerUnavailable, None, "TLS handshake"),
    (
        Code.UNAVAILABLE,
        "failed to connect to all addresses; last error: UNAVAILABLE: ipv4:127.0.0.1:8000: Socket closed",
        ServerUnavailable,
        CONNECTION_BACKOFF_S,
        "hangs up on gRPC",
    ),
    (Code.UNAVAILABLE, "Socket closed", ServerUnavailable, CONNECTION_BACKOFF_S, "is not available: Socket closed"),
    (
        Code.UNAVAILABLE,
        "Server is stopping, scheduler for model has stopped accepting new inference requests",
        ServerUnavailable,
        CONNECTION_BACKOFF_S,
        "Server is stopping",
    ),
    (
        Code.RESOURCE_EXHAUSTED,
        "SERVER: Received message larger than max (10 vs. 4)",
        InvalidRequest,
        None,
        "send fewer images",
    ),
    (Code.DEADLINE_EXCEEDED, "Deadline Exceeded", DeadlineExceeded, None, "no answer from camera:8001 within 2.5 s"),
    (Code.UNAUTHENTICATED, "no token", AccessDenied, None, "no token; give it the credentials"),
]


def test_every_status_has_a_row() -> None:
    assert set(BY_STATUS) == set(Code)


@pytest.mark.parametrize("code", Code)
def test_status_becomes_one_error(code: Code) -> None:
    error, _ = explain(code, "the details.", TARGET)
    assert type(error) is BY_STATUS[code]
    assert error.code is code
    assert error.details == "the details."
    assert "camera:8001" in str(error)
    assert str(error)[0].islower()


@pytest.mark.parametrize("code", Code)
def test_only_a_lost_connection_is_tried_again(code: Code) -> None:
    assert (explain(code, "", TARGET).backoff_s is not None) == (code is Code.UNAVAILABLE)


@pytest.mark.parametrize(("code", "details", "kind", "backoff_s", "words"), BY_DETAILS)
def test_details_choose_the_sentence(
    code: Code, details: str, kind: type[RequestError], backoff_s: float | None, words: str
) -> None:
    failure = explain(code, details, TARGET)
    assert type(failure.error) is kind
    assert failure.backoff_s == backoff_s
    assert words in str(failure.error)


def test_braces_in_details_are_text() -> None:
    assert "{address} {0}" in str(explain(Code.INTERNAL, "{address} {0}", TARGET).error)


def test_error_without_a_status() -> None:
    error = explain_rpc_error(grpc.RpcError("odd"), TARGET).error
    assert type(error) is ServerFault
    assert error.code is Code.UNKNOWN
    assert "odd" in str(error)


@calls
@pytest.mark.parametrize("method", METHODS, ids=METHOD_NAMES)
# A server cannot end a call with OK and no answer; gRPC turns that into UNKNOWN by itself.
@pytest.mark.parametrize("code", [code for code in Code if code is not Code.OK])
def test_no_grpc_error_gets_through(
    server: FakeServer, call: Callable[..., Any], method: Callable[[Any], Any], code: Code
) -> None:
    server.everywhere = Fault(code, "scripted")
    with pytest.raises(RequestError) as caught:
        call(server, method)
    assert type(caught.value) is BY_STATUS[code]
    assert not isinstance(caught.value, grpc.RpcError)
    assert isinstance(caught.value.__cause__, grpc.RpcError)


@calls
@pytest.mark.parametrize("code", [code for code in Code if code is not Code.OK])
def test_readiness_is_false_or_an_error_of_ours(server: FakeServer, call: Callable[..., Any], code: Code) -> None:
    server.everywhere = Fault(code, "scripted")
    not_now = BY_STATUS[code] in (ServerUnavailable, ServerOverloaded, ModelNotFound, DeadlineExceeded)
    if not_now:
        assert call(server, lambda client: client.is_ready()) is False
    else:
        with pytest.raises(BY_STATUS[code]):
            call(server, lambda client: client.is_ready())
