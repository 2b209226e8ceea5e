"""The demo detector through the deployed ensemble: thresholds, batches, and what the repository promises."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from triptych import DetectionClient
from triptych.errors import ContractError, InvalidRequest
from triptych.serving import TritonServer
from triptych_demo.detector import boards

pytestmark = pytest.mark.triton

SEED = 5


@pytest.fixture(scope="module")
def made() -> list[boards.Board]:
    return [boards.generate(SEED, index) for index in range(8)]


@pytest.fixture(scope="module")
def images(made: list[boards.Board]) -> list[bytes]:
    return [board.jpeg for board in made]


@pytest.fixture
def client(demo_server: TritonServer) -> Iterator[DetectionClient]:
    with DetectionClient(demo_server.grpc_address, timeout_s=30) as client:
        yield client


def test_defects_are_found_where_they_are(client: DetectionClient, made: list[boards.Board]) -> None:
    defects, hits = 0, 0
    for board in made:
        answer = client.detect(board.jpeg)
        for box, label in zip(board.boxes_xyxy, board.labels, strict=True):
            center = (box[:2] + box[2:]) / 2
            inside = (answer.boxes_xyxy[:, :2] <= center).all(1) & (center <= answer.boxes_xyxy[:, 2:]).all(1)
            hits += bool((inside & (answer.labels == label)).any())
            defects += 1
    assert defects > 10
    assert hits / defects > 0.8


def test_class_names_come_from_the_server(client: DetectionClient) -> None:
    assert client.class_names() == ("open", "short", "mouse bite", "spur", "spurious copper", "pin hole")


def test_thresholds_are_per_request(client: DetectionClient, images: list[bytes]) -> None:
    everything = client.detect(images[0], score_threshold=0.001, iou_threshold=1.0)
    usual = client.detect(images[0])
    nothing = client.detect(images[0], score_threshold=1.0)
    assert len(everything) > len(usual) > len(nothing) == 0
    assert (usual.scores >= 0.25).all()


def test_a_wrong_threshold_is_refused_in_words(client: DetectionClient) -> None:
    with pytest.raises((ContractError, InvalidRequest), match=r"score_threshold must be a number in 0\.\.1"):
        client.detect(b"any", score_threshold=7)


def test_a_batch_equals_its_images_sent_alone(client: DetectionClient, images: list[bytes]) -> None:
    for alone, together in zip(map(client.detect, images), client.detect_batch(images), strict=True):
        np.testing.assert_array_equal(alone.boxes_xyxy, together.boxes_xyxy)
        np.testing.assert_array_equal(alone.scores, together.scores)
        np.testing.assert_array_equal(alone.labels, together.labels)


def test_concurrent_requests_keep_their_own_answers_and_thresholds(
    client: DetectionClient, images: list[bytes]
) -> None:
    thresholds = [0.05, 0.25, 0.5, 0.9]
    expected = {(i, t): client.detect(images[i], score_threshold=t) for i in range(4) for t in thresholds}

    def ask(case: tuple[int, float]) -> bool:
        answer = client.detect(images[case[0]], score_threshold=case[1])
        return bool(np.array_equal(answer.boxes_xyxy, expected[case].boxes_xyxy))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, list(expected) * 3))
