"""The embedded server before it runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from triptych.errors import ContractError, ServerStartError
from triptych.machine import available_cores
from triptych.serving import Ports, TritonServer
from triptych.serving.server import default_log_path


def test_available_cores() -> None:
    assert available_cores() >= 1


@pytest.mark.parametrize("instances", [{"resize": 1}, {"preprocess": 0}])
def test_instances_that_cannot_be(tmp_path: Path, instances: dict[str, int]) -> None:
    with pytest.raises(ContractError, match="at least 1 of preprocess, detector, postprocess, but got"):
        TritonServer(tmp_path, instances=instances)


def test_addresses(tmp_path: Path) -> None:
    server = TritonServer(tmp_path, ports=Ports(http=1, grpc=2, metrics=3))
    assert server.grpc_address == "127.0.0.1:2"
    assert server.http_url == ""
    assert TritonServer(tmp_path, ports=server.ports, http=True).http_url == "http://127.0.0.1:1"
    assert server.metrics_url == "http://127.0.0.1:3/metrics"


def test_the_log_goes_to_the_state_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_log_path(Ports()) == tmp_path / "triptych" / "server-8001.log"


def test_a_log_that_cannot_be_written(repository: Path) -> None:
    server = TritonServer(repository, ports=Ports.free(), log_path=repository)
    with pytest.raises(ServerStartError, match=r"the log .* cannot be written \(Is a directory\); .*--log"):
        server.start()
    server.stop()


def test_a_server_that_was_not_started(tmp_path: Path) -> None:
    server = TritonServer(tmp_path)
    server.stop()
    with pytest.raises(ServerStartError, match=r"call start\(\)"):
        server.wait_ready()
    with pytest.raises(ServerStartError, match=r"call start\(\)"):
        _ = server.pid


def test_a_model_that_was_changed_since_it_was_published_is_not_served(repository: Path) -> None:
    detector = repository / "detector"
    (detector / "config.pbtxt").write_text('backend: "python" version_policy { specific { versions: 1 } }')
    (detector / "1" / "model.onnx").write_bytes(b"changed")
    (detector / "1" / "manifest.json").write_text(json.dumps({"model_sha256": "0" * 64}))
    with pytest.raises(ServerStartError, match=r"version 1 cannot be served: its model\.onnx is not the file that"):
        TritonServer(repository, ports=Ports.free()).start()
