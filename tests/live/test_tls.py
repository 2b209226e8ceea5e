"""The real Triton with mutual TLS: every kind of client gets in with its certificate, and hears why without."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import ROOT
from support.commands import triptych
from triptych.certificates import make
from triptych.client import AsyncDetectionClient, DetectionClient
from triptych.errors import ServerUnavailable
from triptych.serving.server import Ports, TritonServer
from triptych.serving.tls import ServerTls
from triptych.wire.credentials import LOCAL, Credentials

pytestmark = [pytest.mark.triton, pytest.mark.slow]

IMAGE = ROOT / "docs" / "board.jpg"


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tls")
    make(directory)
    return directory


@pytest.fixture(scope="module")
def repository(demo_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo detector; versions may be added."""
    return shutil.copytree(demo_repository, tmp_path_factory.mktemp("served") / "model_repository")


@pytest.fixture(scope="module")
def tls_server(repository: Path, tls: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    encryption = ServerTls(tls / "server.pem", tls / "server.key", tls / "ca.pem")
    log = tmp_path_factory.mktemp("log") / "log"
    with TritonServer(repository, ports=Ports.free(), log_path=log, tls=encryption) as server:
        yield server


@pytest.fixture(scope="module")
def shown(tls: Path) -> Credentials:
    return Credentials(tls / "ca.pem", tls / "client.pem", tls / "client.key")


def test_both_clients(tls_server: TritonServer, shown: Credentials) -> None:
    async def detect() -> int:
        async with AsyncDetectionClient(tls_server.grpc_address, credentials=shown) as client:
            return len(await client.detect(IMAGE))

    with DetectionClient(tls_server.grpc_address, credentials=shown) as client:
        assert len(client.detect(IMAGE)) == asyncio.run(detect()) > 0


@pytest.mark.parametrize("kind", ["plain text", "no certificate", "another authority", "another host"])
def test_refused_with_its_own_reason(
    kind: str, tls_server: TritonServer, tls: Path, tmp_path: Path, shown: Credentials
) -> None:
    make(tmp_path)
    credentials, words = {
        "plain text": (LOCAL, "wants TLS; give the authority"),
        "no certificate": (Credentials(tls / "ca.pem"), "wants a certificate from its clients"),
        "another authority": (Credentials(tmp_path / "ca.pem"), "was not signed by the authority in"),
        "another host": (Credentials(tls / "ca.pem", server_name="elsewhere"), "is for another host"),
    }[kind]
    with DetectionClient(tls_server.grpc_address, credentials=credentials, retries=0) as client:
        with pytest.raises(ServerUnavailable) as caught:
            client.detect(IMAGE)
        assert words in str(caught.value)


@pytest.fixture
def shown_by_environment(shown: Credentials, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ca", "certificate", "certificate_key"):
        monkeypatch.setenv(f"TRIPTYCH_{name.upper()}", str(getattr(shown, name)))


@pytest.mark.usefixtures("shown_by_environment")
def test_the_build_line(tls_server: TritonServer, repository: Path, tmp_path: Path) -> None:
    """The servers that it starts for itself have no TLS; the one that it is to switch over has."""
    data = tmp_path / "data"
    data.mkdir()
    shutil.copy(IMAGE, data)
    options = ("--data", data, "--cache", tmp_path / "cache", "--force", "--model-repository", repository)
    built = triptych("build", ROOT / "demo" / "pcb.onnx", *options, "--address", tls_server.grpc_address)
    assert built.returncode == 0, built.stderr
    assert f"publish: {tls_server.grpc_address} serves version " in built.stdout, built.stdout
    adapted, out = tmp_path / "adapted.onnx", tmp_path / "report"
    assert triptych("adapt", ROOT / "demo" / "pcb.onnx", "--out", adapted).returncode == 0
    verified = triptych("verify", adapted, "--data", data, "--address", tls_server.grpc_address, "--out", out)
    assert (out / "report.json").exists(), verified.stderr


@pytest.mark.usefixtures("shown_by_environment")
def test_every_command(tls_server: TritonServer, repository: Path, tmp_path: Path) -> None:
    address = ("--address", tls_server.grpc_address)
    images = ("--images", IMAGE.parent)
    assert triptych("detect", IMAGE, *address).returncode == 0
    assert triptych("ready", *address).returncode == 0
    assert triptych("doctor", "--model-repository", repository, *address).returncode == 0
    activated = triptych("activate", 1, "--model-repository", repository, *address)
    assert activated.returncode == 0, activated.stderr
    wrong = tmp_path / "key"
    wrong.write_text("wrong")
    refused = triptych("activate", 1, "--model-repository", repository, *address, "--server-key", wrong)
    assert refused.returncode != 0
    assert "--server-key FILE" in refused.stderr
    run = tmp_path / "run.json"
    loadtest = [sys.executable, "-m", "triptych", "loadtest", *map(str, images), *address, "--out", str(run)]
    loadtest += ["--duration-s", "1", "--warmup-s", "1", "--processes", "2"]
    done = subprocess.run(loadtest, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
    sweep = ("sweep", *images, *address, "--users", "1", "--instances", "1", "--duration-s", "0.5", "--warmup-s", "0")
    swept = subprocess.run(
        [sys.executable, "-m", "triptych", *map(str, sweep)], capture_output=True, text=True, timeout=120
    )
    assert swept.returncode == 0, swept.stderr
    locustfile = ["-m", "locust", "-f", str(ROOT / "loadtest" / "locustfile.py"), "--headless", "--users", "1"]
    locustfile += ["--host", tls_server.grpc_address, *map(str, images), "--run-time", "2s"]
    plain = subprocess.run([sys.executable, *locustfile], capture_output=True, text=True, timeout=90)
    assert plain.returncode == 0, plain.stderr
