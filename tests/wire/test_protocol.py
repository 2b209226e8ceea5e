"""One request built, its response read: what the bytes on the wire must be."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.fake_server import make_response
from triptych.contract import DEFAULT_ROWS, Truncated
from triptych.errors import (
    ContractError,
)
from triptych.wire.protocol import build_request, decode_bytes, encode_bytes, limit_wait, parse_response


@given(st.lists(st.binary(max_size=300)))
def test_bytes_there_and_back(elements: list[bytes]) -> None:
    assert decode_bytes(encode_bytes(elements)) == elements


@given(st.binary(max_size=40))
def test_any_bytes_decode_or_are_refused(raw: bytes) -> None:
    with contextlib.suppress(ContractError):
        assert encode_bytes(decode_bytes(raw)) == raw


@given(st.lists(st.integers(0, 130) | st.none(), min_size=1, max_size=5))
def test_response_there_and_back(sizes: list[int | None]) -> None:
    images = [b"bad" if size is None else bytes(size) for size in sizes]
    rows = parse_response(make_response(images), len(images))
    for i, (size, row) in enumerate(zip(sizes, rows, strict=True)):
        count = min(size or 0, DEFAULT_ROWS)
        steps = np.arange(count, dtype=np.float32)
        assert row.error == ("cannot be read: é" if size is None else "")
        assert row.boxes_xyxy.dtype == row.scores.dtype == np.float32
        assert row.labels.dtype == np.int32
        expected = np.stack([np.full(count, i), steps, np.full(count, i + 1), steps + 1], axis=1)
        np.testing.assert_array_equal(row.boxes_xyxy, expected)
        np.testing.assert_allclose(row.scores, 1 / (steps + 1), rtol=1e-6)
        np.testing.assert_array_equal(row.labels, steps % 3)


@given(st.data())
def test_any_response_parses_or_is_refused(data: st.DataObject) -> None:
    response = make_response([b"a", b"bb"])
    index = data.draw(st.integers(0, len(response.outputs) - 1))
    response.raw_output_contents[index] = data.draw(st.binary(max_size=60))
    response.outputs[index].shape[:] = data.draw(st.lists(st.integers(-1, 200), max_size=3))
    with contextlib.suppress(ContractError):
        assert len(parse_response(response, 2)) == 2


def test_request_on_the_wire() -> None:
    request = build_request("detection", [b"ab", b""], score_threshold=0.5)
    [image] = request.inputs
    assert (image.name, image.datatype, list(image.shape)) == ("IMAGE", "BYTES", [2, 1])
    assert list(request.raw_input_contents) == [b"\x02\0\0\0ab\0\0\0\0"]
    assert {key: value.double_param for key, value in request.parameters.items()} == {"score_threshold": 0.5}


@pytest.mark.parametrize(("seconds", "microseconds"), [(1.5, 1_500_000), (1e-9, 1), (0.0, 1)])
def test_the_time_in_a_queue_is_never_without_limit(seconds: float, microseconds: int) -> None:
    request = build_request("detection", [b"a"])
    limit_wait(request, seconds)
    assert request.parameters["timeout"].int64_param == microseconds


def test_what_cut_an_answer_off() -> None:
    response = make_response([b"a", b"bb"])
    (at,) = (number for number, output in enumerate(response.outputs) if output.name == "TRUNCATED")
    response.raw_output_contents[at] = np.array([3, 0], "<i4").tobytes()
    assert [row.truncated for row in parse_response(response, 2)] == [Truncated.CANDIDATES | Truncated.ROWS, 0]


def test_a_server_of_an_older_release_answers_with_a_hundred_rows_and_does_not_say_what_it_cut_off() -> None:
    response = make_response([b"abc"])
    kept = [at for at, output in enumerate(response.outputs) if output.name not in ("TRUNCATED", "NAMES")]
    outputs, raws = ([values[at] for at in kept] for values in (response.outputs, response.raw_output_contents))
    response.ClearField("outputs")
    response.outputs.extend(outputs)
    response.raw_output_contents[:] = raws
    for output, size in zip(response.outputs[:3], (16, 4, 4), strict=True):
        output.shape[1] = 100
        at = list(response.outputs).index(output)
        response.raw_output_contents[at] = response.raw_output_contents[at][: 100 * size]
    (row,) = parse_response(response, 1)
    assert (len(row.scores), row.truncated, row.names) == (3, 0, 0)
