"""A trace from the client through the ensemble's steps, received as an OpenTelemetry collector receives it."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from support.images import JPEG
from triptych import AsyncDetectionClient, DetectionClient
from triptych.errors import ImageError
from triptych.serving import Ports, TritonServer

pytest.importorskip("opentelemetry.sdk")

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

pytestmark = [pytest.mark.triton, pytest.mark.slow]

Span = dict[str, Any]

TRIES = 4
"""Triton 2.51 loses a trace now and then: 14 of 360 in two runs on two busy cores."""


class Collector:
    """Takes spans by OTLP over HTTP, in JSON, which is how Triton sends them."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # its base class wants the name
                assert self.path == "/v1/traces"
                document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                for resource in document["resourceSpans"]:
                    for scope in resource["scopeSpans"]:
                        collector.spans += scope["spans"]
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1/traces"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def of(self, trace_id: str) -> list[Span]:
        return [span for span in self.spans if span["traceId"] == trace_id]

    def has_all_of(self, trace_ids: set[str]) -> bool:
        """Wait for the eight spans of each trace."""
        for _ in range(100):
            if all(len(self.of(trace_id)) >= 8 for trace_id in trace_ids):
                return True
            time.sleep(0.1)
        return False


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.http.shutdown()
    collector.http.server_close()


@pytest.fixture(scope="module")
def server(
    demo_repository: Path, collector: Collector, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TritonServer]:
    log = tmp_path_factory.mktemp("otel") / "log"
    with TritonServer(demo_repository, ports=Ports.free(), log_path=log, otel_url=collector.url) as server:
        yield server


@pytest.fixture
def client_spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    return exporter


def trace_id(span: ReadableSpan) -> str:
    context = span.get_span_context()
    assert context is not None
    return f"{context.trace_id:032x}"


def test_each_step_hangs_under_the_client_s_span(
    server: TritonServer, collector: Collector, client_spans: InMemorySpanExporter
) -> None:
    for _ in range(TRIES):
        client_spans.clear()
        with DetectionClient(server.grpc_address, timeout_s=30) as client:
            client.detect(JPEG, request_id="order-7")
        [ours] = [span for span in client_spans.get_finished_spans() if span.name == "triptych detect"]
        if collector.has_all_of({trace_id(ours)}):
            break
    context = ours.get_span_context()
    assert context is not None
    spans = collector.of(trace_id(ours))
    by_id = {span["spanId"]: span for span in spans}
    roots = [span for span in spans if span["parentSpanId"] not in by_id]
    assert [(span["name"], span["parentSpanId"]) for span in roots] == [("InferRequest", f"{context.span_id:016x}")]
    steps = {span["name"]: by_id[span["parentSpanId"]]["name"] for span in spans if span not in roots}
    assert steps.items() >= {"detection": "InferRequest", "preprocess": "detection", "detector": "detection"}.items()
    attributes = {attribute["key"]: attribute["value"] for span in spans for attribute in span.get("attributes", ())}
    assert attributes["triton.request_id"] == {"stringValue": "order-7"}


def test_what_the_client_does_not_sample_the_server_does_not_trace(
    server: TritonServer, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace, "get_tracer", TracerProvider(sampler=ALWAYS_OFF).get_tracer)
    before = len(collector.spans)
    with DetectionClient(server.grpc_address, timeout_s=30) as client:
        client.detect(JPEG)
    time.sleep(1.5)
    assert len(collector.spans) == before


def test_the_asyncio_client_has_spans_of_its_own_and_errors_are_in_them(
    server: TritonServer, collector: Collector, client_spans: InMemorySpanExporter
) -> None:
    async def ask() -> None:
        async with AsyncDetectionClient(server.grpc_address, timeout_s=30) as client:
            await asyncio.gather(client.detect(JPEG), client.detect_batch([JPEG]))
            with pytest.raises(ImageError):
                await client.detect(b"nonsense")

    for _ in range(TRIES):
        client_spans.clear()
        asyncio.run(ask())
        spans = client_spans.get_finished_spans()
        if collector.has_all_of({trace_id(span) for span in spans}):
            break
    else:
        raise AssertionError(f"in none of {TRIES} tries the server's spans of all three requests came")
    assert sorted(span.name for span in spans) == ["triptych detect", "triptych detect", "triptych detect_batch"]
    assert [span.status.is_ok for span in spans].count(False) == 1
