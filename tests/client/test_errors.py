"""No error of gRPC gets through: every status becomes one error of the tree."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from support.fake_server import FakeServer, Fault
from triptych import errors
from triptych.client import AsyncDetectionClient, DetectionClient
from triptych.errors import (
    AccessDenied,
    ContractError,
    DeadlineExceeded,
    InvalidRequest,
    ModelNotFound,
    RequestCancelled,
    RequestError,
    ServerFault,
    ServerOverloaded,
    ServerUnavailable,
    TriptychError,
)
from triptych.wire.status import CONNECTION_BACKOFF_S, PROCESS_BACKOFF_S, Target, explain, explain_rpc_error

TARGET = Target("camera:8001", "detection", 2.5)
Code = grpc.StatusCode

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
    (Code.UNAVAILABLE, "Request timeout expired", ServerOverloaded, None, "waited longer in a queue"),
    (
        Code.UNAVAILABLE,
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
        PROCESS_BACKOFF_S,
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


def test_all_is_sorted_and_holds_the_tree() -> None:
    public = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, Exception) and value.__module__ == errors.__name__
    }
    assert errors.__all__ == sorted(public)


METHODS: list[Callable[[Any], Any]] = [
    lambda client: client.detect(b"abc"),
    lambda client: client.detect_batch([b"a", b"b"]),
    lambda client: client.spec(),
    lambda client: client.server_version(),
    lambda client: client.statistics(),
]
METHOD_NAMES = ["detect", "detect_batch", "spec", "server_version", "statistics"]


def call_sync(server: FakeServer, method: Callable[[Any], Any]) -> Any:
    with DetectionClient(server.address, retries=0) as client:
        return method(client)


def call_async(server: FakeServer, method: Callable[[Any], Any]) -> Any:
    async def run() -> Any:
        async with AsyncDetectionClient(server.address, retries=0) as client:
            return await method(client)

    return asyncio.run(run())


calls = pytest.mark.parametrize("call", [call_sync, call_async], ids=["sync", "async"])


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


def output_named(response: Any, name: str) -> tuple[int, Any]:
    return next((index, output) for index, output in enumerate(response.outputs) if output.name == name)


def drop(name: str) -> Callable[[Any], None]:
    def change(response: Any) -> None:
        index, _ = output_named(response, name)
        del response.outputs[index], response.raw_output_contents[index]

    return change


def reshape(name: str, *shape: int) -> Callable[[Any], None]:
    def change(response: Any) -> None:
        output_named(response, name)[1].shape[:] = shape

    return change


def retype(name: str, dtype: str) -> Callable[[Any], None]:
    def change(response: Any) -> None:
        output_named(response, name)[1].datatype = dtype

    return change


def refill(name: str, raw: bytes) -> Callable[[Any], None]:
    def change(response: Any) -> None:
        response.raw_output_contents[output_named(response, name)[0]] = raw

    return change


def no_raw(response: Any) -> None:
    del response.raw_output_contents[:]


BAD_RESPONSES: list[tuple[Callable[[Any], None], str]] = [
    *[(drop(name), f"no output {name}") for name in ("BOXES", "SCORES", "LABELS", "COUNT", "ERROR")],
    (reshape("BOXES", 1, 50, 4), r"BOXES must be FP32 \[1, 100, 4\], but got FP32 \[1, 50, 4\]"),
    (reshape("SCORES", 2, 100), r"SCORES must be FP32 \[1, 100\]"),
    (reshape("ERROR", 1), r"ERROR must be BYTES \[1, 1\]"),
    (retype("LABELS", "INT64"), r"LABELS must be INT32 \[1, 100\], but got INT64"),
    (refill("BOXES", bytes(1596)), "BOXES must have 1600 bytes, but got 1596"),
    (refill("SCORES", b""), "SCORES must have 400 bytes, but got 0"),
    (refill("COUNT", (101).to_bytes(4, "little")), "COUNT must be in 0..100, but got 101"),
    (refill("COUNT", b"\xff\xff\xff\xff"), "COUNT must be in 0..100, but got -1"),
    (refill("LABELS", b"\xff" * 400), "LABELS must not be negative"),
    (refill("LABELS", (7).to_bytes(4, "little") * 100), "class 7, but the detector .* names only 3"),
    (refill("ERROR", b""), "ERROR must have 1 elements, but got 0"),
    (refill("ERROR", bytes(8)), "ERROR must have 1 elements, but got 2"),
    (refill("ERROR", b"\x00\x00"), "ends within the length of its element 0"),
    (refill("ERROR", b"\x05\x00\x00\x00ab"), "element 0 of a BYTES tensor must have 5 bytes, but only 2 are left"),
    (no_raw, "raw bytes for each of its 5 outputs, but got 0"),
]


@calls
@pytest.mark.parametrize(("change", "words"), BAD_RESPONSES)
def test_bad_responses(server: FakeServer, call: Callable[..., Any], change: Callable[[Any], None], words: str) -> None:
    server.script.append(change)
    with pytest.raises(ContractError, match=words) as caught:
        call(server, METHODS[0])
    assert isinstance(caught.value, TriptychError)
