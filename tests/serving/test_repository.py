"""Switching a running server over to another version, where the server does not take it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import grpc
import pytest
from tritonclient.grpc import model_config_pb2

from support.fake_server import CLASS_NAMES, FakeServer
from triptych.contract import DetectorSpec
from triptych.errors import AccessDenied, BuildError, ContractError, ServerUnavailable
from triptych.serving.decoding import DEVICE_INPUTS, PIXELS_FROM, takes_gpu_pixels
from triptych.serving.repository import activate, versions
from triptych.wire.model_control import ModelControl


def write_version(repository: Path, number: int, spec: DetectorSpec, backend: str = "python") -> Path:
    directory = repository / "detector" / str(number)
    directory.mkdir(parents=True)
    parameters = "".join(
        f"parameters {{ key: {json.dumps(key)} value {{ string_value: {json.dumps(value)} }} }}\n"
        for key, value in spec.to_parameters().items()
    )
    (directory / "config.pbtxt").write_text(
        f'backend: "{backend}"\n'
        f'output {{ name: "candidates" dims: [300, {7 if backend == "python" else 6}] }}\n'
        f'input {{ name: "pixels" dims: [{spec.height}, {spec.width}, 3] }}\n'
        f"version_policy {{ specific {{ versions: {number} }} }}\n{parameters}"
    )
    return directory


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Version 1, which is served; 2 has other classes; 3 another size of images; 4 is 2 in a backend of Triton's."""
    write_version(tmp_path, 1, DetectorSpec(64, 32, CLASS_NAMES))
    write_version(tmp_path, 2, DetectorSpec(64, 32, ("cat",)))
    write_version(tmp_path, 3, DetectorSpec(64, 64, CLASS_NAMES))
    write_version(tmp_path, 4, DetectorSpec(64, 32, ("cat",)), backend="onnxruntime")
    activate(tmp_path, 1)
    return tmp_path


def served(repository: Path) -> list[int]:
    return [version.number for version in versions(repository) if version.is_served]


def test_nobody_answers(repository: Path, nobody: str) -> None:
    with pytest.raises(ServerUnavailable, match=f"no server answers at {nobody}"):
        activate(repository, 2, nobody)
    assert served(repository) == [1]


@pytest.mark.parametrize("name", ["model.onnx", "model.plan.8.9"])
def test_a_model_that_is_not_the_published_one_is_not_served(repository: Path, name: str) -> None:
    published = hashlib.sha256(b"as published").hexdigest()
    version = repository / "detector" / "2"
    manifest = {"model_sha256": published, "plans": {"8.9": {"model_sha256": published}}}
    (version / "manifest.json").write_text(json.dumps(manifest))
    (version / name).write_bytes(b"as published")
    activate(repository, 2)
    activate(repository, 1)
    (version / name).write_bytes(b"as publi")
    with pytest.raises(BuildError, match=f"version 2 cannot be served: its {name} is not the file that was published"):
        activate(repository, 2)
    assert served(repository) == [1]


def test_a_server_that_refuses(repository: Path, server: FakeServer) -> None:
    with pytest.raises(BuildError, match=f"{server.address} does not take version 2: Method not implemented"):
        activate(repository, 2, server.address)
    assert served(repository) == [1]


def test_a_server_of_somebody_else(repository: Path, server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def restricted(*_: object) -> None:
        error = grpc.RpcError()
        error.code = lambda: grpc.StatusCode.UNAVAILABLE
        error.details = lambda: "This protocol is restricted, expecting header 'triton-grpc-protocol-triptych-key'"
        raise error

    monkeypatch.setattr(ModelControl, "load", restricted)
    with pytest.raises(AccessDenied, match="as the user who started it with `triptych serve`"):
        activate(repository, 2, server.address)
    assert served(repository) == [1]


def test_a_version_that_takes_other_pixels(repository: Path, server: FakeServer) -> None:
    with pytest.raises(
        BuildError,
        match=r"version 3 differs from what .* serves in more than its weights .*; "
        r"the server serves it after `triptych activate 3` without --address and a restart of the server",
    ):
        activate(repository, 3, server.address)
    assert served(repository) == [1]


def test_a_version_that_cannot_say_which_names_it_means(repository: Path, server: FakeServer) -> None:
    with pytest.raises(BuildError, match=r"version 4 names its classes otherwise than what .* serves, and its target"):
        activate(repository, 4, server.address)
    assert served(repository) == [1]


def test_a_server_that_decodes_on_a_gpu_gets_a_version_that_takes_pixels_from_there(
    repository: Path, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, loaded = ModelControl.config, []

    def on_gpu(*arguments: Any) -> model_config_pb2.ModelConfig:
        served_now = config(*arguments)
        served_now.parameters[PIXELS_FROM].string_value = "gpu"
        return served_now

    monkeypatch.setattr(ModelControl, "config", on_gpu)
    monkeypatch.setattr(ModelControl, "load", lambda *of: loaded.append(of[-1]))
    monkeypatch.setattr(ModelControl, "served", lambda _: {("detector", "2"): 1})
    with pytest.raises(ContractError, match="detector does not take pixels on a GPU; `triptych publish"):
        activate(repository, 2, server.address)
    assert (served(repository), loaded) == ([1], [])
    version = repository / "detector" / "2" / "config.pbtxt"
    parameter = f'parameters {{ key: "{DEVICE_INPUTS}" value {{ string_value: "no" }} }}\n'
    version.write_text(version.read_text() + parameter)
    activate(repository, 2, server.address)
    assert served(repository) == [2]
    assert takes_gpu_pixels(loaded[0])


def test_a_version_whose_configuration_is_broken(repository: Path) -> None:
    (repository / "detector" / "2" / "config.pbtxt").write_text("nonsense {")
    with pytest.raises(BuildError, match="version 2 cannot be served"):
        activate(repository, 2)
    assert served(repository) == [1]
