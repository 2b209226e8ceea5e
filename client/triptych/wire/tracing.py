"""OpenTelemetry: a span for each call of a client, which the server's own spans of the request hang under.

It takes the packages of `pip install 'triptych[otel]'` and a program that sets OpenTelemetry up. Without them nothing
happens here. Which calls are traced, the program's sampler says: the server traces every request that says it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

try:
    from opentelemetry import propagate, trace
except ImportError:
    trace = None  # type: ignore[assignment]


@contextmanager
def client_span(name: str, address: str, request_id: str) -> Iterator[None]:
    """Put what happens within into a span, which has the error that ends it.

    Args:
        name: what the client does, such as "detect".
        address: the server, host:port.
        request_id: what the caller calls the request; may be empty.
    """
    if trace is None:
        yield
        return
    attributes = {"rpc.system": "grpc", "server.address": address, "triton.request_id": request_id}
    tracer = trace.get_tracer("triptych")
    with tracer.start_as_current_span(f"triptych {name}", kind=trace.SpanKind.CLIENT, attributes=attributes):
        yield


def trace_headers() -> tuple[tuple[str, str], ...]:
    """Return the headers that name the span that we are in; none if it is not recorded, or there is none."""
    if trace is None or not trace.get_current_span().get_span_context().trace_flags.sampled:
        return ()
    headers: dict[str, str] = {}
    propagate.inject(headers)
    return tuple((name.lower(), value) for name, value in headers.items())
