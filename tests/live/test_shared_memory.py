"""Shared memory with the real Triton: the same answers as by gRPC, and nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from pathlib import Path

import cv2
import grpc
import numpy as np
import pytest
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2, service_pb2_grpc

from conftest import MakeRepository
from support import ROOT
from triptych import AsyncDetectionClient, Credentials, DetectionClient, Detections, TritonServer
from triptych.errors import AccessDenied, DeadlineExceeded, ServerOverloaded
from triptych.serving.server import Ports
from triptych.vision.inputs import ImageLike
from triptych.wire.credentials import LOCAL
from triptych.wire.shared_memory import SHARED_MEMORY, SMALLEST_BYTES, _prefix
from triptych_demo.detector import boards

pytestmark = pytest.mark.triton


def large(width: int = 1600, height: int = 1200) -> NDArray[np.uint8]:
    board = boards.generate(seed=5, index=0).image
    return cv2.resize(board, (width, height)).astype(np.uint8, copy=False)


def same(one: Detections, other: Detections) -> bool:
    columns = (one.boxes_xyxy, other.boxes_xyxy), (one.scores, other.scores), (one.labels, other.labels)
    return all(np.array_equal(a, b) for a, b in columns)


def left(server: TritonServer) -> list[str]:
    """What clients have at the server and in /dev/shm."""
    with grpc.insecure_channel(server.grpc_address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        headers = LOCAL.headers(server.grpc_address)
        status = stub.SystemSharedMemoryStatus(service_pb2.SystemSharedMemoryStatusRequest(), metadata=headers)
    files = [path.name for path in SHARED_MEMORY.glob(f"{_prefix(server.grpc_address)}*")]
    return sorted({*status.regions, *files})


def test_the_answers_are_those_of_grpc(demo_server: TritonServer) -> None:
    pixels = large()
    bmp = cv2.imencode(".bmp", pixels)[1].tobytes()
    assert len(bmp) > SMALLEST_BYTES
    with (
        DetectionClient(demo_server.grpc_address) as plain,
        DetectionClient(demo_server.grpc_address, shared_memory=True) as shared,
    ):
        for image in (pixels, pixels[..., 0], bmp):
            expected = plain.detect(image)
            assert same(shared.detect(image), expected)
        assert len(expected)
        mixed: list[ImageLike] = [bmp, b"no image", pixels]
        for got, wanted in zip(shared.detect_batch(mixed), plain.detect_batch(mixed), strict=True):
            assert same(got, wanted)
            assert got.error == wanted.error
        assert len(left(demo_server)) == 1
    assert left(demo_server) == []


def test_many_at_once_and_some_that_are_given_up(demo_server: TritonServer) -> None:
    images = [large(1200 + 100 * number, 900) for number in range(6)]
    with DetectionClient(demo_server.grpc_address) as plain:
        expected = [plain.detect(image) for image in images]

    async def run() -> None:
        async with AsyncDetectionClient(demo_server.grpc_address, shared_memory=True, timeout_s=30) as client:

            async def given_up(image: NDArray[np.uint8]) -> None:
                with contextlib.suppress(DeadlineExceeded, ServerOverloaded):  # a third of the time is for the queue
                    await client.detect(image, timeout_s=0.02)

            for _ in range(3):
                got, _ = await asyncio.gather(
                    asyncio.gather(*map(client.detect, images)), asyncio.gather(*map(given_up, images))
                )
                assert all(map(same, got, expected))

    asyncio.run(run())
    assert left(demo_server) == []


def test_the_key_is_needed(demo_server: TritonServer, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("another")
    credentials = Credentials(server_key=tmp_path / "key")
    with (
        DetectionClient(demo_server.grpc_address, shared_memory=True, credentials=credentials) as client,
        pytest.raises(AccessDenied, match="only for those who have its key"),
    ):
        client.detect(large())
    assert left(demo_server) == []


def test_a_killed_client_leaves_nothing_for_long(demo_server: TritonServer, tmp_path: Path) -> None:
    np.save(tmp_path / "image.npy", large())
    program = (
        "import sys, numpy; from triptych import DetectionClient\n"
        "client = DetectionClient(sys.argv[1], shared_memory=True, timeout_s=60)\n"
        "client.detect(numpy.load(sys.argv[2])); print('detected', flush=True); sys.stdin.read()"
    )
    arguments = [sys.executable, "-c", program, demo_server.grpc_address, str(tmp_path / "image.npy")]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"detected\n"
        process.kill()
    assert len(left(demo_server)) == 1
    with DetectionClient(demo_server.grpc_address, shared_memory=True) as client:
        client.detect(large())
        assert len(left(demo_server)) == 1
    assert left(demo_server) == []


@pytest.mark.slow
def test_a_server_that_starts_again(make_repository: MakeRepository, tmp_path: Path) -> None:
    repository, ports, image = make_repository(ROOT / "demo" / "pcb.onnx"), Ports.free(), large()
    with TritonServer(repository, ports=ports, log_path=tmp_path / "log") as server:
        client = DetectionClient(server.grpc_address, shared_memory=True, timeout_s=60, retries=5)
        before = client.detect(image)
    with TritonServer(repository, ports=ports, log_path=tmp_path / "log"):
        with client:
            assert same(client.detect(image), before)
            assert len(left(server)) == 1
        assert left(server) == []
