"""What all tests share: the real data that only some machines have, and the real Triton server."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import adapt
import publish
from adapt import Overrides
from publish import InstanceGroup
from support import DATA, ROOT
from triptych.repository import serve
from triptych.server import Ports, TritonServer

MakeRepository = Callable[..., Path]


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
        serve(repository, int(publish.publish(directory / "adapted.onnx", "openvino", repository, group).name))
        return repository

    return make


@pytest.fixture(scope="session")
def demo_repository(make_repository: MakeRepository) -> Path:
    """The demo detector, published."""
    return make_repository(ROOT / "build" / "demo" / "pcb.onnx")


@pytest.fixture(scope="session")
def demo_server(demo_repository: Path) -> Iterator[TritonServer]:
    """The demo detector, served."""
    with TritonServer(demo_repository, ports=Ports.free(), log_path=demo_repository.parent / "log") as server:
        yield server


@pytest.fixture(scope="module")
def yolox_server(make_repository: MakeRepository, shared_data: Path) -> Iterator[TritonServer]:
    """YOLOX-Nano with COCO's classes, served."""
    names = adapt.read_names(shared_data / "yolox_nano" / "coco_classes.txt")
    repository = make_repository(shared_data / "yolox_nano" / "yolox_nano.onnx", Overrides(names=names))
    with TritonServer(repository, ports=Ports.free(), log_path=repository.parent / "log") as server:
        yield server
