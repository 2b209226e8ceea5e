"""Power in a run: what is known of it, what it says, and several runs together."""

from __future__ import annotations

from dataclasses import replace

import pytest

from support.measured import made_up
from support.power import gpu, power, processor, throttled_run
from triptych.measure.power.figures import Gauges, mean_power_w, pool_power, power_sentences
from triptych.measure.power.throttled import throttled_sentences
from triptych.measure.remarks import differences, of_pair, of_run


def test_images_per_joule_are_of_each_kind_of_device() -> None:
    run = replace(made_up(requests=200), power=power(gpu(4000.0), gpu(6000.0, number=1), processor(500.0)))
    assert run.images_per_j == {"GPU": pytest.approx(0.02), "CPU": pytest.approx(0.4)}
    batches = replace(run, workload=replace(run.workload, batch=8))
    assert batches.images_per_j["GPU"] == pytest.approx(0.16)
    assert made_up().images_per_j == {}, "nobody measured"


def test_one_unknown_energy_leaves_the_sum_unknown() -> None:
    run = replace(made_up(), power=power(gpu(4000.0), gpu(None, number=1), processor(500.0)))
    assert list(run.images_per_j) == ["CPU"]
    assert power_sentences(power(gpu(None)), 100) == []


def test_the_mean_power_is_that_of_the_energy_and_else_of_the_gauge() -> None:
    seen = power(gpu(4000.0, watts=[100.0]), gpu(None, watts=[100.0, 200.0]), seconds=10.0)
    assert [mean_power_w(seen, device) for device in seen.devices] == [400.0, 150.0]


def test_the_sentences() -> None:
    assert power_sentences(power(gpu(4000.0), gpu(4200.0, number=1), processor(1000.0)), 20_000) == [
        "2 GPUs took 8,200 J (give or take 200) by NVML, 820 W: 2.44 images per joule",
        "1 CPU took 1,000 J (give or take 100) by RAPL, 100 W: 20 images per joule",
    ]


def test_throttling_stands_beside_the_tail() -> None:
    run = throttled_run()
    (sentence,) = throttled_sentences(run)
    assert sentence == (
        "NVIDIA H100 80GB HBM3 was throttled in 3 of 10 intervals (power cap), and the p99 is 4.0 times the p50 "
        "(median of those intervals 400.0 ms, of the others 100.0 ms)"
    )
    (remark,) = [remark for remark in of_run(run) if remark.id == "gpu-throttled"]
    assert remark.text == sentence
    pair = [remark.text for remark in of_pair(made_up(), run, ("fp32", "int8")) if remark.id == "gpu-throttled"]
    assert pair == [f"in int8, {sentence}"]


def test_what_is_not_known_to_be_throttled_is_no_remark() -> None:
    calm = replace(made_up(), power=power(gpu(4000.0, throttled=[[]] * 10), gpu(4000.0, number=1)))
    assert throttled_sentences(calm) == []
    assert calm.power
    assert [device.throttling.known for device in calm.power.devices] == [10, 0]


def test_two_gpus_of_one_name_are_told_apart() -> None:
    run = replace(made_up(), power=power(gpu(1.0), gpu(1.0, number=1, throttled=[["temperature"]] * 10)))
    assert throttled_sentences(run)[0].startswith(
        "NVIDIA H100 80GB HBM3 (GPU-1) was throttled in 10 of 10 intervals (temperature), and the p99 is"
    )


def test_runs_of_one_side_are_added_up() -> None:
    one = power(gpu(4000.0, throttled=[["power cap"]] * 2), seconds=10.0)
    two = power(gpu(5000.0, throttled=[[]] * 2), seconds=20.0)
    both = pool_power([one, two])
    assert both
    assert both.energy_j("GPU") == 9000.0
    assert both.seconds == 30.0
    assert both.accuracy("GPU") == pytest.approx(1 + 200 / 9000)
    assert str(both.devices[0].throttling) == "throttled in 2 of 4 intervals (power cap)"


def test_runs_of_other_devices_or_without_any_are_not_added_up() -> None:
    one = power(gpu(4000.0))
    assert pool_power([one, None]) is None
    assert pool_power([one, power(gpu(4000.0, number=1))]) is None
    both = pool_power([one, power(gpu(None))])
    assert both
    assert both.kinds == []
    assert both.devices[0].unknown == "its counter began anew meanwhile"


def test_energy_from_unlike_counters_is_a_difference() -> None:
    by_driver = replace(made_up(), power=power(gpu(4000.0)))
    by_server = replace(made_up(), power=power(gpu(4000.0, source="triton")))
    (remark,) = differences(by_driver, by_server)
    assert remark.id == "meters-differ"
    assert remark.text == "sources of the energy differ: GPU by NVML in A, GPU by Triton's metrics in B"
    assert differences(replace(made_up(), power=power()), made_up()) == [], "neither has any"


def test_gauges_of_intervals() -> None:
    device = gpu(1.0, watts=[100.0, 300.0])
    device = replace(device, intervals=[*device.intervals, Gauges()])
    assert device.values("power_w") == [100.0, 300.0]
    assert device.mean("power_w") == 200.0
    assert device.mean("sm_clock_mhz") is None
