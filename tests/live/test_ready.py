"""Whether a real server is ready."""

from __future__ import annotations

import pytest

from triptych.serving import TritonServer
from triptych.serving.readiness import ask_ready

pytestmark = pytest.mark.triton


def test_a_server_that_serves_is_ready(demo_server: TritonServer) -> None:
    answer = ask_ready(demo_server.grpc_address, 10)
    assert answer.is_ready, answer.line
    assert answer.line.startswith(f"ready: {demo_server.grpc_address} answered an image")
