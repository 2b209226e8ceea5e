"""Publishing and going back while traffic flows: counted, not one request fails."""

from __future__ import annotations

import time
from pathlib import Path

import onnx
import pytest

from support import ROOT
from support.traffic import Load
from triptych.errors import BuildError
from triptych.serving import repository as versions
from triptych.serving.server import Ports, TritonServer
from triptych_build.adapt import adapter as adapt
from triptych_build.publish import publish
from triptych_build.publish.publish import InstanceGroup

pytestmark = [pytest.mark.triton, pytest.mark.slow]

GROUP = InstanceGroup(count=1, threads=1)


def variant(directory: Path, name: str, overrides: adapt.Overrides | None = None) -> Path:
    """The demo detector once more, another file with the same weights."""
    model = onnx.load(ROOT / "demo" / "pcb.onnx")
    entry = model.metadata_props.add()
    entry.key, entry.value = "variant", name
    onnx.save(model, directory / f"source-{name}.onnx")
    adapt.adapt_file(directory / f"source-{name}.onnx", directory / f"{name}.onnx", overrides or adapt.Overrides())
    return directory / f"{name}.onnx"


def served(repository: Path) -> list[int]:
    return [version.number for version in versions.versions(repository) if version.is_served]


def test_no_request_fails(make_repository, tmp_path):
    repository = make_repository(ROOT / "demo" / "pcb.onnx", group=GROUP)
    with TritonServer(repository, ports=Ports.free(), log_path=tmp_path / "log") as server:
        with Load(server.grpc_address) as load:
            time.sleep(1)
            for name in ("a", "b"):
                version = publish.publish(variant(tmp_path, name), "openvino", repository, GROUP)
                versions.activate(repository, int(version.name), server.grpc_address)
                assert served(repository) == [int(version.name)]
                time.sleep(1)
            versions.activate(repository, 1, server.grpc_address)
            assert served(repository) == [1]
            time.sleep(1)
        outcomes = load.take()
        assert not load.failures(outcomes), outcomes
        assert sum(outcomes.values()) > 20

        other = publish.publish(variant(tmp_path, "c", adapt.Overrides(pad_value=0)), "openvino", repository, GROUP)
        with pytest.raises(BuildError, match=r"differs from what .* serves in more than its weights"):
            versions.activate(repository, int(other.name), server.grpc_address)
        assert served(repository) == [1], "what the server did not take, the repository does not serve"
