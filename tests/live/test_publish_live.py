"""Publishing and going back while traffic flows: counted, not one request fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from support import ROOT
from support.traffic import Traffic
from triptych.errors import BuildError
from triptych.serving import Ports, TritonServer
from triptych.serving.repository import activate, versions
from triptych_build.adapt import adapter as adapt
from triptych_build.publish import publish
from triptych_build.publish.target import InstanceGroup

pytestmark = [pytest.mark.triton, pytest.mark.slow]

GROUP = InstanceGroup(count=1, threads=1)


def variant(directory: Path, name: str, overrides: adapt.Overrides | None = None) -> Path:
    """Write the demo detector once more: another file with the same weights."""
    model = onnx.load(ROOT / "demo" / "pcb.onnx")
    entry = model.metadata_props.add()
    entry.key, entry.value = "variant", name
    onnx.save(model, directory / f"source-{name}.onnx")
    adapt.adapt_file(directory / f"source-{name}.onnx", directory / f"{name}.onnx", overrides or adapt.Overrides())
    return directory / f"{name}.onnx"


def served(repository: Path) -> list[int]:
    return [version.number for version in versions(repository) if version.is_served]


def test_no_request_fails(make_repository: Callable[..., Path], tmp_path: Path) -> None:
    repository = make_repository(ROOT / "demo" / "pcb.onnx", group=GROUP)
    with TritonServer(repository, ports=Ports.free(), log_path=tmp_path / "log") as server:
        with Traffic(server.grpc_address) as traffic:
            outcomes = traffic.take_next(6)
            numbers = [
                int(publish.publish(variant(tmp_path, name), "openvino", repository, GROUP).name) for name in ("a", "b")
            ]
            for number in (*numbers, 1):
                outcomes += traffic.take()
                activate(repository, number, server.grpc_address)
                assert served(repository) == [number]
                outcomes += traffic.take()
                outcomes += traffic.take_next(6)
        outcomes += traffic.take()
        assert not traffic.failures(outcomes), outcomes

        other = publish.publish(variant(tmp_path, "c", adapt.Overrides(pad_value=0)), "openvino", repository, GROUP)
        with pytest.raises(BuildError, match=r"differs from what .* serves in more than its weights"):
            activate(repository, int(other.name), server.grpc_address)
        assert served(repository) == [1], "what the server did not take, the repository does not serve"
