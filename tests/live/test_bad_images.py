"""Awkward image files through the deployed ensemble: a bad one costs only its own row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from PIL import Image
from tritonclient.grpc import service_pb2_grpc

from support.images import JPEG, PNG, damaged_animation, gradient, many_scans, save
from triptych import DetectionClient, Detections
from triptych.errors import ImageError
from triptych.serving import TritonServer
from triptych.vision.decode import decode
from triptych.wire.protocol import build_request, encode_bytes

pytestmark = pytest.mark.triton


@pytest.fixture(scope="module")
def photographs(shared_data: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((shared_data / "coco_cc" / "images").iterdir())[:4]]


@pytest.fixture(scope="module")
def edge_files(shared_data: Path) -> list[Path]:
    return sorted(path for path in (shared_data / "edge_images" / "files").rglob("*") if path.is_file())


@pytest.fixture
def client(yolox_server: TritonServer) -> Iterator[DetectionClient]:
    with DetectionClient(yolox_server.grpc_address, retries=0, timeout_s=30) as client:
        yield client


def is_readable(path: Path) -> bool:
    try:
        decode(path.read_bytes())
    except ImageError:
        return False
    return True


def assert_same(answer: Detections, expected: Detections) -> None:
    assert answer.error == expected.error == ""
    np.testing.assert_array_equal(answer.labels, expected.labels)
    np.testing.assert_array_equal(answer.boxes_xyxy, expected.boxes_xyxy)
    np.testing.assert_array_equal(answer.scores, expected.scores)


@pytest.mark.slow
def test_each_file_alone(client: DetectionClient, edge_files: list[Path]) -> None:
    for path in edge_files:
        (answer,) = client.detect_batch([path.read_bytes()])
        assert bool(answer.error) == (not is_readable(path)), path.name
        if answer.error:
            assert len(answer) == 0
            assert " " in answer.error, f"{path.name}: a sentence, not {answer.error!r}"
    assert client.is_ready()


@pytest.mark.slow
def test_in_batches_with_good_photographs(
    client: DetectionClient, edge_files: list[Path], photographs: list[bytes]
) -> None:
    alone = [client.detect(photograph) for photograph in photographs]
    assert sum(map(len, alone)) > 0
    for start in range(0, len(edge_files), 4):
        awkward = edge_files[start : start + 4]
        batch = [image for path, good in zip(awkward, photographs, strict=False) for image in (good, path.read_bytes())]
        answers = client.detect_batch(batch)
        for position, path in enumerate(awkward):
            assert_same(answers[2 * position], alone[position])
            assert bool(answers[2 * position + 1].error) == (not is_readable(path)), path.name
    assert client.is_ready()


@pytest.mark.slow
def test_a_batch_of_bad_images_only(client: DetectionClient) -> None:
    answers = client.detect_batch([b"not an image", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"])
    assert all(answer.error and len(answer) == 0 for answer in answers)


def test_what_ended_the_service_once_costs_itself_alone(demo_server: TritonServer) -> None:
    before = demo_server.processes()
    with DetectionClient(demo_server.grpc_address, retries=0, timeout_s=30) as client:
        alone = client.detect(JPEG)
        for bad in (damaged_animation(), many_scans(12_000)):
            first, answer, last = client.detect_batch([JPEG, bad, PNG])
            assert first.boxes_xyxy.tolist() == alone.boxes_xyxy.tolist()
            assert (first.error, last.error) == ("", "")
        assert "more than 100 scans" in answer.error
    assert demo_server.processes() == before


def test_a_request_with_too_few_images_costs_itself_alone(demo_server: TritonServer) -> None:
    request = build_request("detection", [JPEG])
    request.raw_input_contents[0] = encode_bytes([JPEG, JPEG])
    with grpc.insecure_channel(demo_server.grpc_address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(request, timeout=30)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.slow
def test_an_image_that_takes_too_long_is_given_up(demo_server: TritonServer) -> None:
    slow = save(Image.fromarray(gradient(7000, 7000)), "JPEG2000")
    with DetectionClient(demo_server.grpc_address, retries=0, timeout_s=60) as client:
        first, answer, last = client.detect_batch([JPEG, slow, PNG])
    assert answer.error == "the image takes more than 2 s to decode; send it smaller, or as a plain JPEG"
    assert (first.error, last.error) == ("", "")
