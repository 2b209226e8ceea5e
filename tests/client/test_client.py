"""The blocking client against real gRPC on loopback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.calls import METHODS, calls
from support.fake_server import CLASS_NAMES, FakeServer
from triptych import client as client_module
from triptych.client import AsyncDetectionClient, DetectionClient
from triptych.errors import (
    ContractError,
    ImageError,
    TriptychError,
)
from triptych.wire.credentials import Credentials


def test_detect(client: DetectionClient, server: FakeServer) -> None:
    detections = client.detect(b"abc", score_threshold=0.5, iou_threshold=1)
    assert detections.names == ("person", "bicycle", "car")
    assert detections.class_names == CLASS_NAMES
    assert detections.boxes_xyxy.shape == (3, 4)
    assert detections.error == ""
    [request] = server.requests
    sent = {key: value.double_param for key, value in request.parameters.items()}
    del sent["timeout"]
    assert sent == {"score_threshold": 0.5, "iou_threshold": 1.0}
    assert request.model_name == "detection"


def test_defaults_are_left_to_the_model(client: DetectionClient, server: FakeServer) -> None:
    client.detect(b"a")
    assert list(server.requests[0].parameters) == ["timeout"]


def test_a_request_s_id_travels_with_it(client: DetectionClient, server: FakeServer) -> None:
    client.detect(b"a", request_id="frame-7")
    client.detect_batch([b"a", b"b"], request_id="batch-1")
    client.detect(b"a")
    assert [request.id for request in server.requests] == ["frame-7", "batch-1", ""]


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), "0.5", True])
@pytest.mark.parametrize("name", ["score_threshold", "iou_threshold"])
def test_thresholds_out_of_range(client: DetectionClient, server: FakeServer, name: str, value: Any) -> None:
    words = f"{name} must be a number in 0..1, but got"
    with pytest.raises(ContractError, match=words):
        client.detect(b"a", **{name: value})
    with pytest.raises(ContractError, match=words):
        client.detect_batch([], **{name: value})
    assert not server.requests


def test_image_that_the_server_cannot_read(client: DetectionClient, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"^cannot be read: é$"):
        client.detect(b"bad")
    path = tmp_path / "bad.jpg"
    path.write_bytes(b"bad")
    with pytest.raises(ImageError, match=f"^{path}: cannot be read: é$"):
        client.detect(path)


def test_batch_keeps_order_and_bad_images_cost_their_own_row(client: DetectionClient, server: FakeServer) -> None:
    images = [b"a", b"bad", b"", b"ccc", b"dddd", b"bad", b"f"]
    results = client.detect_batch(images, iou_threshold=0.3)
    assert [len(result) for result in results] == [1, 0, 0, 3, 4, 0, 1]
    assert [bool(result.error) for result in results] == [False, True, True, False, False, True, False]
    assert server.batches == [[b"a", b"bad", b"ccc"], [b"dddd", b"bad", b"f"]]
    assert all(request.parameters["iou_threshold"].double_param == 0.3 for request in server.requests)


@pytest.mark.parametrize(("images", "batches"), [(0, []), (1, [1]), (4, [4]), (5, [4, 1]), (9, [4, 4, 1])])
def test_batches_of_what_the_server_takes(
    client: DetectionClient, server: FakeServer, images: int, batches: list[int]
) -> None:
    results = client.detect_batch([bytes(i + 1) for i in range(images)])
    assert [len(result) for result in results] == [i + 1 for i in range(images)]
    assert [len(batch) for batch in server.batches] == batches


def test_model_that_does_not_batch(client: DetectionClient, server: FakeServer) -> None:
    server.max_batch_size = 0
    with pytest.raises(ContractError, match="max_batch_size of at least 1"):
        client.detect_batch([b"a", b"b"])


@pytest.mark.parametrize("images", ["street.jpg", b"jpeg", Path("a.jpg"), np.zeros((4, 4, 3), np.uint8)])
def test_one_image_is_no_batch(client: DetectionClient, images: Any) -> None:
    with pytest.raises(ContractError, match="takes a list of images"):
        client.detect_batch(images)


def test_stack_of_images_is_a_batch(client: DetectionClient) -> None:
    assert len(client.detect_batch(np.zeros((3, 4, 4, 3), np.uint8))) == 3


def test_the_spec_is_that_of_now(client: DetectionClient, server: FakeServer) -> None:
    assert client.class_names() == CLASS_NAMES
    server.class_names = ("cat",)
    assert client.class_names() == ("cat",)
    assert (client.spec().width, client.spec().height) == (64, 32)


def test_readiness_and_version(client: DetectionClient, server: FakeServer, nobody: str) -> None:
    assert client.is_ready()
    assert client.server_version() == "2.51.0"
    server.ready = False
    assert not client.is_ready()
    with DetectionClient(nobody) as nobody_there:
        assert not nobody_there.is_ready()


def test_statistics(client: DetectionClient) -> None:
    before = client.statistics()["detection"]
    client.detect(b"a")
    assert (client.statistics()["detection"] - before).inferences == 1


def test_headers(server: FakeServer) -> None:
    with DetectionClient(server.address, headers={"Authorization": "Bearer s3cret"}) as client:
        client.detect(b"a")
    assert server.metadata[0]["authorization"] == "Bearer s3cret"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"address": "http://127.0.0.1:8000"}, "must be host:port, such as 127.0.0.1:8001, but got 'http:"),
        ({"address": "localhost"}, "must be host:port"),
        ({"timeout_s": 0}, "timeout_s must be a positive, finite number of seconds, but got 0"),
        ({"timeout_s": float("inf")}, "timeout_s must be"),
        ({"timeout_s": float("nan")}, "timeout_s must be"),
        ({"retries": -1}, "retries must be an integer of at least 0, but got -1"),
        ({"retries": 1.5}, "retries must be"),
        ({"headers": {"a b": "c"}}, "a header's name must be .* but got 'a b'"),
        ({"headers": {"token-bin": "c"}}, "a header's name"),
        ({"headers": {"token": "geheim\n"}}, "value of header 'token' must be printable ASCII, but is not$"),
        (
            {"credentials": Credentials(ca="/no/such/ca.pem")},
            "the file ca='/no/such/ca.pem' cannot be read: No such file",
        ),
        ({"credentials": Credentials(ca=__file__)}, "is not PEM"),
    ],
)
@pytest.mark.parametrize("kind", [DetectionClient, AsyncDetectionClient])
def test_arguments_that_are_refused(kind: Any, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ContractError, match=words):
        kind(**arguments)


def test_timeout_of_one_call_is_checked(client: DetectionClient) -> None:
    with pytest.raises(ContractError, match="timeout_s must be"):
        client.detect(b"a", timeout_s=-1)


def test_all_is_sorted() -> None:
    assert client_module.__all__ == sorted(client_module.__all__)
    assert all(hasattr(client_module, name) for name in client_module.__all__)


def test_both_clients_have_the_same_methods() -> None:
    def public(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    names = public(DetectionClient)
    assert names == public(AsyncDetectionClient)
    kinds = (DetectionClient, AsyncDetectionClient)
    properties = {name for kind in kinds for name in names if isinstance(getattr(kind, name), property)}
    assert properties == {"address", "credentials"}, "what asks the server is a method"


def output_named(response: Any, name: str) -> tuple[int, Any]:
    return next((index, output) for index, output in enumerate(response.outputs) if output.name == name)


def drop(name: str) -> Callable[[Any], None]:
    def change(response: Any) -> None:
        index, _ = output_named(response, name)
        del response.outputs[index], response.raw_output_contents[index]

    return change


def reshape(name: str, *shape: int) -> Callable[[Any], None]:
    def change(response: Any) -> None:
        output_named(response, name)[1].shape[:] = shape

    return change


def retype(name: str, dtype: str) -> Callable[[Any], None]:
    def change(response: Any) -> None:
        output_named(response, name)[1].datatype = dtype

    return change


def refill(name: str, raw: bytes) -> Callable[[Any], None]:
    def change(response: Any) -> None:
        response.raw_output_contents[output_named(response, name)[0]] = raw

    return change


def truncate(name: str, rows: int) -> Callable[[Any], None]:
    def change(response: Any) -> None:
        index, output = output_named(response, name)
        output.shape[1] = rows
        response.raw_output_contents[index] = response.raw_output_contents[index][: rows * 4]

    return change


def no_raw(response: Any) -> None:
    del response.raw_output_contents[:]


BAD_RESPONSES: list[tuple[Callable[[Any], None], str]] = [
    *[(drop(name), f"no output {name}") for name in ("BOXES", "SCORES", "LABELS", "COUNT", "ERROR")],
    (reshape("BOXES", 1, 50, 5), r"BOXES must be FP32 \[1, -1, 4\], but got FP32 \[1, 50, 5\]"),
    (reshape("SCORES", 2, 300), r"SCORES must be FP32 \[1, -1\]"),
    (truncate("LABELS", 200), "300 rows of BOXES, but 300 of SCORES and 200 of LABELS"),
    (reshape("BOXES", 1, -300, -4), r"BOXES must be FP32 \[1, -1, 4\]"),
    (reshape("SCORES", 1, -300), "SCORES must have -1200 bytes"),
    (reshape("ERROR", 1), r"ERROR must be BYTES \[1, 1\]"),
    (retype("LABELS", "INT64"), r"LABELS must be INT32 \[1, -1\], but got INT64"),
    (refill("BOXES", bytes(4796)), "BOXES must have 4800 bytes, but got 4796"),
    (refill("SCORES", b""), "SCORES must have 1200 bytes, but got 0"),
    (refill("COUNT", (301).to_bytes(4, "little")), "COUNT must be in 0..300, but got 301"),
    (refill("COUNT", b"\xff\xff\xff\xff"), "COUNT must be in 0..300, but got -1"),
    (refill("LABELS", b"\xff" * 1200), "LABELS must not be negative"),
    (refill("LABELS", (7).to_bytes(4, "little") * 300), "class 7, but the detector .* names only 3"),
    (refill("ERROR", b""), "ERROR must have 1 elements, but got 0"),
    (refill("ERROR", bytes(8)), "ERROR must have 1 elements, but got 2"),
    (refill("ERROR", b"\x00\x00"), "ends within the length of its element 0"),
    (refill("ERROR", b"\x05\x00\x00\x00ab"), "element 0 of a BYTES tensor must have 5 bytes, but only 2 are left"),
    (no_raw, "raw bytes for each of its 7 outputs, but got 0"),
]


@calls
@pytest.mark.parametrize(("change", "words"), BAD_RESPONSES)
def test_bad_responses(server: FakeServer, call: Callable[..., Any], change: Callable[[Any], None], words: str) -> None:
    server.script.append(change)
    with pytest.raises(ContractError, match=words) as caught:
        call(server, METHODS[0])
    assert isinstance(caught.value, TriptychError)
