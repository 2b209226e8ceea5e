"""Triton's traces, read and split."""

from __future__ import annotations

import json

import pytest

from triptych.measure.traces import MOST_TRACES_PER_S, join, parse, sampling

NAMES = ("REQUEST_START", "QUEUE_START", "COMPUTE_START", "COMPUTE_INPUT_END", "COMPUTE_OUTPUT_START", "COMPUTE_END")


def lines(number: int, model: str, parent: int | None, request_id: str, **at_ms: float) -> list[str]:
    """One trace as Triton writes it: compact, the request's id not escaped."""
    head = f'{{"id":{number},"model_name":"{model}","model_version":1,"request_id":"{request_id}"'
    head += f',"parent_id":{parent}}}' if parent else "}"
    stamp = '{{"id":{},"timestamps":[{{"name":"{}","ns":{}}}]}}'
    return [head, *(stamp.format(number, name, round(ms * 1e6)) for name, ms in at_ms.items())]


def stage(number: int, name: str, parent: int, request_id: str, *at_ms: float) -> list[str]:
    return lines(number, name, parent, request_id, **dict(zip(NAMES, at_ms, strict=True)))


def one_request(first: int = 1, request_id: str = "r-1") -> list[str]:
    return [
        *stage(first + 3, "postprocess", first, request_id, 30, 30, 31, 32, 34, 40),  # goes on after the answer
        *stage(first + 2, "detector", first, request_id, 5, 5, 6, 7, 27, 31),  # hands over before it has ended
        *stage(first + 1, "preprocess", first, request_id, 1, 1, 1.5, 2, 4, 4.5),
        *lines(first, "detection", None, request_id, REQUEST_START=0.5, INFER_RESPONSE_COMPLETE=35, REQUEST_END=41),
    ]


def test_parts_do_not_overlap_and_add_up() -> None:
    (request,) = join(parse(f"[{','.join(one_request())}]"))
    assert request.request_id == "r-1"
    assert request.stages["preprocess"] == {"queue": 0.5, "input": 0.5, "infer": 2, "output": 0.5}
    assert request.stages["detector"] == {"queue": 1, "input": 1, "infer": 20, "output": 3}
    assert request.stages["postprocess"] == {"queue": 1, "input": 1, "infer": 2, "output": 1}
    assert request.server_ms == 34.5
    assert request.overhead_ms == pytest.approx(1.0)


def test_wherever_a_file_ends_what_is_whole_before_is_read() -> None:
    text = f"[{','.join(one_request() + one_request(5, 'r-2'))}]"
    counts = [len(join(parse(text[:length]))) for length in range(len(text) + 1)]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, 2)
    assert join(parse(text[: len(text) * 3 // 4])) == join(parse(text))[:1]


def test_an_id_that_breaks_the_json_does_not_break_the_reader() -> None:
    text = "[" + ",".join(one_request(request_id='a"b') + one_request(5, "r-2")) + "]"
    with pytest.raises(ValueError, match="delimiter"):
        json.loads(text)
    assert [request.request_id for request in join(parse(text))] == ['a"b', "r-2"]


def test_a_request_without_its_every_stage_is_left_out() -> None:
    failed = [line for line in one_request() if '"id":4' not in line]
    assert join(parse("".join(failed))) == []


@pytest.mark.parametrize(
    ("requests_per_s", "cycle", "rate"), [(0, 1, 1), (50, 8, 1), (51, 1, 2), (700, 3, 14), (300, 3, 7)]
)
def test_of_many_requests_a_second_one_in_so_many_is_traced(requests_per_s: float, cycle: int, rate: int) -> None:
    assert sampling(requests_per_s, cycle) == rate
    assert requests_per_s / rate <= MOST_TRACES_PER_S


@pytest.mark.parametrize("cycle", [2, 4, 6, 30])
def test_the_traces_are_of_all_images(cycle: int) -> None:
    rate = sampling(700, cycle)
    assert {number % cycle for number in range(0, 1000 * rate, rate)} == set(range(cycle))
