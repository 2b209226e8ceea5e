"""The server's counters, read from its answer and subtracted."""

from __future__ import annotations

from collections import Counter

from tritonclient.grpc import service_pb2

from triptych.wire.statistics import NS_PER_MS, Counters, parse_statistics


def test_an_answer_becomes_counters_and_versions_are_added_up() -> None:
    response = service_pb2.ModelStatisticsResponse()
    for version in ("1", "2"):
        model = response.model_stats.add(name="detector", version=version, inference_count=6, execution_count=4)
        stats = model.inference_stats
        stats.success.count, stats.success.ns, stats.fail.count = 3, 60, 1
        stats.queue.ns, stats.compute_input.ns, stats.compute_infer.ns, stats.compute_output.ns = 10, 20, 25, 5
        batch = model.batch_stats.add(batch_size=2)
        batch.compute_infer.count = 2
    counters = Counters(
        requests=6, failures=2, inferences=12, executions=8, total_ns=120, queue_ns=20, input_ns=40, infer_ns=50,
        output_ns=10, batches=Counter({2: 4}), versions=["1", "2"],
    )  # fmt: skip
    assert parse_statistics(response) == {"detector": counters}


def test_a_difference_is_what_happened_between() -> None:
    before = Counters(requests=5, inferences=10, executions=5, infer_ns=5_000_000, batches=Counter({2: 5}))
    after = Counters(requests=9, inferences=22, executions=7, infer_ns=13_000_000, batches=Counter({2: 5, 6: 2}))
    window = after - before
    assert (window.requests, window.batches) == (4, Counter({6: 2}))
    assert window.mean_batch == 6
    assert window.mean_ms("infer") == 2
    assert before + window == after


def test_no_requests_divide_by_nothing() -> None:
    assert Counters().mean_batch == Counters().mean_ms("total") == 0
    assert NS_PER_MS == 1e6
