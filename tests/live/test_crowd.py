"""A crowd on the real server: whole, or said to be cut off."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from support.detectors import crowd_model
from triptych.client import DetectionClient
from triptych.contract import Truncated
from triptych.serving.server import Ports, TritonServer
from triptych_build.adapt.adapter import Overrides
from triptych_build.publish.target import InstanceGroup

pytestmark = pytest.mark.triton


def test_a_crowd_of_more_objects_than_rows(make_repository: Callable[..., Path], tmp_path: Path) -> None:
    overrides = Overrides(rows=40)
    repository = make_repository(crowd_model(tmp_path / "source.onnx"), overrides, InstanceGroup(count=1, threads=1))
    picture = np.zeros((640, 640, 3), np.uint8)
    with (
        TritonServer(repository, ports=Ports.free(), log_path=tmp_path / "log") as server,
        DetectionClient(server.grpc_address) as client,
    ):
        cut, whole = client.detect(picture), client.detect(picture, score_threshold=0.7)
    assert (len(cut), cut.truncated) == (40, Truncated.ROWS)
    assert (len(whole), whole.truncated) == (30, Truncated(0))
