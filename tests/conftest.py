"""What all tests share: the real data that only some machines have, and the real Triton server."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from support import DATA, ROOT
from support.fake_server import FakeServer
from triptych.client import DetectionClient
from triptych.serving.repository import activate
from triptych.serving.server import Ports, TritonServer
from triptych_build.adapt import adapter as adapt
from triptych_build.adapt.adapter import Overrides
from triptych_build.adapt.names import read_names
from triptych_build.publish import publish
from triptych_build.publish.target import InstanceGroup

MakeRepository = Callable[..., Path]

# How long an example takes is the machine's affair.
settings.register_profile("triptych", deadline=None)
settings.load_profile("triptych")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep a file's tests in one process of pytest-xdist, and all live ones together: they share their servers."""
    for item in items:
        path = item.path.relative_to(ROOT / "tests")
        item.add_marker(pytest.mark.xdist_group("live" if path.parts[0] in ("live", "examples") else str(path)))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real photographs and weights that lie beside the checkout and are not part of it."""
    if not DATA.is_dir():
        pytest.skip(f"needs the real data in {DATA}, which is not here")
    return DATA


@pytest.fixture(scope="session")
def make_repository(tmp_path_factory: pytest.TempPathFactory) -> MakeRepository:
    """A copy of the model repository with one published detector."""

    def make(model: Path, overrides: Overrides | None = None, group: InstanceGroup | None = None) -> Path:
        directory = tmp_path_factory.mktemp("repository")
        repository = directory / "model_repository"
        shutil.copytree(ROOT / "model_repository", repository, ignore=shutil.ignore_patterns("detector", "__pycache__"))
        adapt.adapt_file(model, directory / "adapted.onnx", overrides or Overrides())
        group = group or InstanceGroup(count=2, threads=1)
        activate(repository, int(publish.publish(directory / "adapted.onnx", "openvino", repository, group).name))
        return repository

    return make


@pytest.fixture(scope="session")
def demo_repository(make_repository: MakeRepository) -> Path:
    """The demo detector, published."""
    return make_repository(ROOT / "demo" / "pcb.onnx")


@pytest.fixture(scope="session")
def demo_server(demo_repository: Path) -> Iterator[TritonServer]:
    """The demo detector, served."""
    with TritonServer(demo_repository, ports=Ports.free(), log_path=demo_repository.parent / "log") as server:
        yield server


@pytest.fixture(scope="session")
def yolox_server(make_repository: MakeRepository, shared_data: Path) -> Iterator[TritonServer]:
    """YOLOX-Nano with COCO's classes, served."""
    names = read_names(shared_data / "yolox_nano" / "coco_classes.txt")
    repository = make_repository(shared_data / "yolox_nano" / "yolox_nano.onnx", Overrides(names=names))
    with TritonServer(repository, ports=Ports.free(), log_path=repository.parent / "log") as server:
        yield server


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """A fake server that listens."""
    fake = FakeServer().start()
    yield fake
    fake.stop()


@pytest.fixture
def client(server: FakeServer) -> Iterator[DetectionClient]:
    with DetectionClient(server.address) as opened:
        yield opened


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pause is longer than a moment."""
    monkeypatch.setattr("triptych.wire.session.MAX_BACKOFF_S", 0.01)


@pytest.fixture
def nobody() -> str:
    """An address where nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"
