"""Triton's traces read and split, and the arithmetic of who owns what."""

from __future__ import annotations

import json

import numpy as np
import pytest

from support.measured import traced_requests
from triptych.contract import STAGES
from triptych.measure.attribution import (
    Breakdown,
    Headroom,
    Requests,
    from_requests,
    from_statistics,
    owner_sentence,
)
from triptych.measure.traces import PARTS, TracedRequest, join, parse
from triptych.measure.window import Window
from triptych.wire.statistics import Counters

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
    found = [len(join(parse(text[:length]))) for length in range(len(text) + 1)]
    assert found == sorted(found)
    assert (found[0], found[-1]) == (0, 2)
    assert join(parse(text[: len(text) * 3 // 4])) == join(parse(text))[:1]


def test_an_id_that_breaks_the_json_does_not_break_the_reader() -> None:
    text = "[" + ",".join(one_request(request_id='a"b') + one_request(5, "r-2")) + "]"
    with pytest.raises(ValueError, match="delimiter"):
        json.loads(text)
    assert [request.request_id for request in join(parse(text))] == ['a"b', "r-2"]


def test_a_request_without_its_every_stage_is_left_out() -> None:
    failed = [line for line in one_request() if '"id":4' not in line]
    assert join(parse("".join(failed))) == []


def test_every_breakdown_adds_up_and_is_its_percentile() -> None:
    detector_ms = np.random.default_rng(3).gamma(4.0, 5.0, 2000)
    found = from_requests(traced_requests(detector_ms))
    assert list(found.breakdowns) == ["mean", "p50", "p95", "p99"]
    for at, breakdown in found.breakdowns.items():
        assert sum(breakdown.owners().values()) == pytest.approx(breakdown.total_ms)
        true = detector_ms.mean() if at == "mean" else np.percentile(detector_ms, float(at[1:]))
        assert breakdown.total_ms == pytest.approx(true + 5, rel=0.02)
        assert breakdown.owners()["detector"] == pytest.approx(true, rel=0.03)
        assert breakdown.network_and_client_ms == pytest.approx(2)
    assert found.percentiles_ms["detector infer"]["p95"] == pytest.approx(np.percentile(detector_ms, 95))


def test_one_request_is_enough() -> None:
    found = from_requests(traced_requests(np.array([10.0])))
    assert {breakdown.total_ms for breakdown in found.breakdowns.values()} == {15.0}


def test_requests_that_one_side_does_not_know_are_left_out() -> None:
    traced = [TracedRequest("other", 1.0, {each.name: dict.fromkeys(PARTS, 0.0) for each in STAGES}, 1.0)]
    assert len(Requests.join(traced, {"ours": 5.0})) == 0


def test_statistics_explain_the_mean() -> None:
    ms = 1_000_000
    counters = {
        "detection": Counters(requests=2, total_ns=2 * 20 * ms),
        "preprocess": Counters(2, 0, 2, 2, 2 * 3 * ms, 2 * ms, 2 * ms // 2, 2 * ms // 2, 2 * ms // 2),
        "detector": Counters(2, 0, 2, 2, 2 * 12 * ms, 2 * ms, 2 * ms, 2 * 9 * ms, 2 * ms),
        "postprocess": Counters(2, 0, 2, 2, 2 * 4 * ms, 2 * ms, 2 * ms, 2 * ms, 2 * ms),
    }
    found = from_statistics(Window([21.0, 25.0], 1.0, counters))
    assert (found.source, list(found.breakdowns)) == ("statistics", ["mean"])
    mean = found.breakdowns["mean"]
    assert mean.owners() == pytest.approx(
        {"preprocess": 3, "detector": 12, "postprocess": 4, "ensemble overhead": 1, "network and client": 3}
    )
    assert mean.stages["preprocess"]["queue"] == pytest.approx(1.5), "what is in the total alone comes before the queue"


def test_who_owns_it() -> None:
    stages = {"detector": {"queue": 2.0, "input": 0.0, "infer": 10.0, "output": 0.0}}
    assert owner_sentence(Breakdown(20.0, 7.0, 1.0, stages), "p95") == (
        "detector owns 60% of the p95: 10.0 ms in the model, 2.0 ms waiting for a free instance"
    )
    assert owner_sentence(Breakdown(40.0, 27.0, 1.0, stages), "mean") == "network and client owns 68% of the mean: " + (
        "27.0 of 40.0 ms"
    )


def test_headroom_in_milliseconds_and_frames() -> None:
    assert (Headroom(50, 40).ms, Headroom(50, 40).frames_per_s) == (10, 5)
    assert "10.0 ms to spare" in Headroom(50, 40).sentence("p95")
    assert "over the budget of 50 ms at p95 by 12.5 ms" in Headroom(50, 62.5).sentence("p95")
    assert "4.0 frames/s less than 20.0" in Headroom(50, 62.5).sentence("p95")
