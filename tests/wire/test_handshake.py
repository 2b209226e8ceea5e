"""Each way in which TLS does not come about is refused with its own reason, against real gRPC servers."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import grpc
import pytest

from support.fake_server import FakeServer
from triptych.certificates import make
from triptych.client import DetectionClient
from triptych.errors import ServerUnavailable
from triptych.wire.credentials import LOCAL, Credentials

YEAR_AGO = datetime.now(timezone.utc) - timedelta(days=366)

Start = Callable[..., FakeServer]


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("mine")
    make(directory)
    return directory


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("other")
    make(directory)
    return directory


@pytest.fixture(scope="module")
def expired(mine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same authority, whose server and client ended yesterday."""
    directory = tmp_path_factory.mktemp("expired")
    make(directory, days=365, now=YEAR_AGO)
    return directory


@pytest.fixture
def start() -> Iterator[Start]:
    servers: list[FakeServer] = []

    def begin(directory: Path, client_ca: Path | None = None) -> FakeServer:
        pair = (directory / "server.key").read_bytes(), (directory / "server.pem").read_bytes()
        root = client_ca.read_bytes() if client_ca else None
        servers.append(FakeServer(tls=grpc.ssl_server_credentials([pair], root, client_ca is not None)).start())
        return servers[-1]

    yield begin
    for server in servers:
        server.stop()


def shown(directory: Path, ca: Path) -> Credentials:
    return Credentials(ca / "ca.pem", directory / "client.pem", directory / "client.key")


def refusal(address: str, credentials: Credentials) -> str:
    with (
        DetectionClient(address, credentials=credentials, retries=0) as client,
        pytest.raises(ServerUnavailable) as caught,
    ):
        client.detect(b"abc")
    return str(caught.value)


def test_tls_and_mutual_tls(mine: Path, start: Start) -> None:
    with DetectionClient(start(mine).address, credentials=Credentials(mine / "ca.pem")) as client:
        assert len(client.detect(b"abc")) == 3
    with DetectionClient(start(mine, mine / "ca.pem").address, credentials=shown(mine, mine)) as client:
        assert len(client.detect(b"abc")) == 3


def test_wrong_authority(mine: Path, other: Path, start: Start) -> None:
    assert "was not signed by the authority in" in refusal(start(mine).address, Credentials(other / "ca.pem"))


def test_expired(expired: Path, start: Start) -> None:
    assert "has expired; renew it on the server" in refusal(start(expired).address, Credentials(expired / "ca.pem"))


def test_wrong_host(mine: Path, start: Start) -> None:
    port = start(mine).port
    reason = refusal(f"127.0.0.1:{port}", Credentials(mine / "ca.pem", server_name="triton.example"))
    assert "is for another host" in reason
    with DetectionClient(
        f"127.0.0.1:{port}", credentials=Credentials(mine / "ca.pem", server_name="localhost")
    ) as client:
        assert len(client.detect(b"abc")) == 3


@pytest.mark.parametrize("mutual", [False, True])
def test_plain_text_to_tls(mutual: bool, mine: Path, start: Start) -> None:
    server = start(mine, mine / "ca.pem" if mutual else None)
    assert "wants TLS; give the authority" in refusal(server.address, LOCAL)


def test_tls_to_plain_text(mine: Path, server: FakeServer) -> None:
    assert "does not speak TLS; connect without --ca" in refusal(server.address, Credentials(mine / "ca.pem"))


def test_no_certificate_of_the_client(mine: Path, start: Start) -> None:
    server = start(mine, mine / "ca.pem")
    assert "wants a certificate from its clients" in refusal(server.address, Credentials(mine / "ca.pem"))


def test_a_clients_certificate_of_another_authority(mine: Path, other: Path, start: Start) -> None:
    assert "does not trust the certificate" in refusal(start(mine, mine / "ca.pem").address, shown(other, mine))


def test_a_clients_certificate_that_has_expired(mine: Path, expired: Path, tmp_path: Path, start: Start) -> None:
    for name in ("ca.pem", "ca.key"):
        shutil.copy(expired / name, tmp_path)
    make(tmp_path)
    server = start(tmp_path, tmp_path / "ca.pem")
    assert "has expired on" in refusal(server.address, shown(expired, tmp_path))


def test_nobody_is_still_nobody(mine: Path, nobody: str) -> None:
    assert "connection refused" in refusal(nobody, Credentials(mine / "ca.pem"))
