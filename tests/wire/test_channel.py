"""Encrypted connections, and servers that are not what the client takes them for."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from support.fake_server import FakeServer, Fault
from triptych.client import AsyncDetectionClient, DetectionClient
from triptych.errors import (
    AccessDenied,
    InvalidRequest,
    ServerUnavailable,
)
from triptych.wire.channel import is_here
from triptych.wire.credentials import Credentials
from triptych.wire.model_control import ModelControl


def self_signed(folder: Path, name: str) -> tuple[Path, Path]:
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=triptych-test", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-out", certificate, "-keyout", key], check=True, capture_output=True, timeout=30)
    return certificate, key


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    return self_signed(tmp_path_factory.mktemp("tls"), "server")


@pytest.fixture(scope="module")
def other_ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority that signed nothing else."""
    return self_signed(tmp_path_factory.mktemp("other"), "ca")[0]


@pytest.fixture
def tls_server(certificate: tuple[Path, Path]) -> Iterator[FakeServer]:
    """It also asks for the client's certificate."""
    certificate_pem, key_pem = (path.read_bytes() for path in certificate)
    credentials = grpc.ssl_server_credentials([(key_pem, certificate_pem)], certificate_pem, True)
    server = FakeServer(tls=credentials).start()
    yield server
    server.stop()


def test_tls(tls_server: FakeServer, certificate: tuple[Path, Path]) -> None:
    credentials = Credentials(ca=certificate[0], certificate=certificate[0], certificate_key=certificate[1])

    async def run() -> int:
        async with AsyncDetectionClient(tls_server.address, credentials=credentials) as client:
            return len(await client.detect(b"abc"))

    with DetectionClient(tls_server.address, credentials=credentials) as client:
        assert len(client.detect(b"abc")) == 3
    assert asyncio.run(run()) == 3


def test_certificate_that_is_not_trusted(tls_server: FakeServer, other_ca: Path) -> None:
    with (
        DetectionClient(tls_server.address, credentials=Credentials(ca=other_ca)) as client,
        pytest.raises(ServerUnavailable, match=r"was not signed by the authority in .* --ca FILE"),
    ):
        client.detect(b"a")


def test_tls_where_there_is_none(server: FakeServer, other_ca: Path) -> None:
    with (
        DetectionClient(server.address, credentials=Credentials(ca=other_ca)) as client,
        pytest.raises(ServerUnavailable, match="does not speak TLS; connect without --ca"),
    ):
        client.detect(b"a")


def test_plain_text_where_tls_is_wanted(tls_server: FakeServer) -> None:
    with (
        DetectionClient(tls_server.address, retries=0) as client,
        pytest.raises(ServerUnavailable, match=r"wants TLS; give the authority .* with --ca FILE"),
    ):
        client.detect(b"a")


def test_token_that_is_refused(server: FakeServer) -> None:
    server.everywhere = Fault(grpc.StatusCode.UNAUTHENTICATED, "bad token")
    with DetectionClient(server.address) as client, pytest.raises(AccessDenied, match="bad token"):
        client.detect(b"a")


def test_service_that_is_not_tritons(nobody: str) -> None:
    other = grpc.server(ThreadPoolExecutor(1))
    other.add_insecure_port(nobody)
    other.start()
    with DetectionClient(nobody) as client, pytest.raises(InvalidRequest, match="is it a Triton server"):
        client.detect(b"a")
    other.stop(0).wait()


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1:8001", "127.0.0.2:1", "localhost:8001", "LOCALHOST:1", "gpu.localhost:1", "[::1]:8001"),
        *("unix:/tmp/socket", "unix-abstract:name", "ipv4:127.0.0.1:1", "ipv6:[::1]:1", "dns:///localhost:1"),
    ],
)
def test_here(address: str) -> None:
    assert is_here(address)


@pytest.mark.parametrize("address", ["10.0.0.1:8001", "triton.example:1", "localhost.example:1", "dns:///a.example:1"])
def test_elsewhere(address: str) -> None:
    assert not is_here(address)


@pytest.mark.parametrize("name", ["grpc_proxy", "https_proxy", "http_proxy"])
def test_no_proxy_for_a_server_of_this_machine(
    name: str, server: FakeServer, nobody: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, f"http://{nobody}")

    async def detect() -> int:
        async with AsyncDetectionClient(server.address) as client:
            return len(await client.detect(b"abc"))

    with DetectionClient(server.address) as client:
        assert len(client.detect(b"abc")) == 3
    assert asyncio.run(detect()) == 3
    control = ModelControl(server.address)
    assert control.config("detector").name
    control.close()


def test_a_proxy_is_used_for_other_machines(nobody: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("grpc_proxy", f"http://{nobody}")
    with (
        DetectionClient("triton.example:8001", retries=0, timeout_s=10) as client,
        pytest.raises(ServerUnavailable, match="refused"),
    ):
        client.detect(b"abc")
