"""A server that comes back at another address under the same name: the name is looked up again."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from tritonclient.grpc import service_pb2_grpc

from support.fake_server import FakeServer
from triptych.client import DetectionClient
from triptych.errors import RequestError


class NameServer:
    """A DNS server that knows one address for every name, which a test may change."""

    def __init__(self, host: str) -> None:
        self.host, self.asked = host, 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            question, sender = self._socket.recvfrom(512)
            self.asked += 1
            end = question.index(b"\0", 12) + 5  # the name, its end, type and class
            wants_ipv4 = question[end - 4 : end - 2] == b"\0\1"
            header = question[:2] + b"\x81\x80\0\1" + (b"\0\1" if wants_ipv4 else b"\0\0") + b"\0\0\0\0"
            answer = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4" + socket.inet_aton(self.host) if wants_ipv4 else b""
            self._socket.sendto(header + question[12:end] + answer, sender)


def serve(fake: FakeServer, host: str, port: int) -> grpc.Server:
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(fake, server)
    server.add_insecure_port(f"{host}:{port}")
    server.start()
    return server


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.2", 0)) as listener:
        return int(listener.getsockname()[1])


def test_a_server_that_moves(port: int) -> None:
    names, before, after = NameServer("127.0.0.2"), FakeServer(), FakeServer()
    first = serve(before, "127.0.0.2", port)
    with DetectionClient(f"dns://127.0.0.1:{names.port}/triton.test:{port}", timeout_s=5) as client:
        client.detect(b"abc")
        second = serve(after, "127.0.0.3", port)
        names.host = "127.0.0.3"
        first.stop(0).wait()
        deadline = time.monotonic() + 20
        while not after.requests and time.monotonic() < deadline:
            with contextlib.suppress(RequestError):
                client.detect(b"abc")
            time.sleep(0.05)
    assert after.requests
    second.stop(0).wait()
