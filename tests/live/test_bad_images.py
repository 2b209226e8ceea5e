"""Awkward image files through the deployed ensemble: a bad one costs only its own row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from triptych import DetectionClient, Detections
from triptych.errors import ImageError
from triptych.serving import TritonServer
from triptych.vision.decode import decode

pytestmark = [pytest.mark.triton, pytest.mark.slow]


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


def test_each_file_alone(client: DetectionClient, edge_files: list[Path]) -> None:
    for path in edge_files:
        (answer,) = client.detect_batch([path.read_bytes()])
        assert bool(answer.error) == (not is_readable(path)), path.name
        if answer.error:
            assert len(answer) == 0
            assert " " in answer.error, f"{path.name}: a sentence, not {answer.error!r}"
    assert client.is_ready()


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


def test_a_batch_of_bad_images_only(client: DetectionClient) -> None:
    answers = client.detect_batch([b"not an image", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"])
    assert all(answer.error and len(answer) == 0 for answer in answers)
