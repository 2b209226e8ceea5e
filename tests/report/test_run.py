"""The report of a run."""

from __future__ import annotations

import dataclasses

from support.pages import Reader, make_run
from support.power import gpu, power, throttled_run
from triptych import report
from triptych.measure.footprint import Footprint, GpuFootprint, ProcessFootprint, Trend
from triptych.measure.scenario import Scenario, TriedRate
from triptych.report.blocks import Page


def test_the_figures_of_a_run_are_in_both(every_page: dict[str, Page]) -> None:
    run = make_run(4.0)
    latencies, attribution = run.client.latencies, run.attribution
    assert latencies.percentile_ms(95) < 100
    figures = [
        f"{latencies.percentile_ms(99):.1f}",
        f"{latencies.mean_ms:.1f}",
        f"{attribution.breakdowns['p95'].stages['detector']['queue']:.2f}",
        f"{attribution.percentiles_ms['detector infer']['p99']:.2f}",
        "within the budget of 100 ms at p95",
        "detector owns",
        "a CPU",
        "a GPU",
        "pcb.onnx",
        "0.33",
        "triptych loadtest --images 'my images'",
        run.workload.images.sha256,
        "80.0",  # images a second: two a request
        "on 1.8 images on average",
    ]
    text, markdown = Reader(report.html(every_page["run"])).text, report.markdown(every_page["run"])
    for figure in figures:
        assert figure in text, figure
        assert figure in markdown, figure


def test_a_budget_that_is_broken_is_shown() -> None:
    page = report.html(report.of_run(make_run(), "run", budget_ms=1))
    assert '<p class="note bad">over the budget of 1 ms at p95' in page


def test_a_scenario_comes_first_and_with_every_rate_that_was_tried() -> None:
    tried = [TriedRate(40.0, 7.5, 0.25, False), TriedRate(20.0, 60.0, 0.005, True)]
    scenario = Scenario("server", 20.0, "", 81.5, 1200, 60.0, ["60 s of 600 s"], 100.0, tried)
    markdown = report.markdown(report.of_run(dataclasses.replace(make_run(), scenario=scenario), "run"))
    assert "**server: 20 queries/s within 100 ms at p99 (1,200 queries in 60 s)**" in markdown
    assert "not a valid MLPerf length: 60 s of 600 s" in markdown
    rows = [line for line in markdown.splitlines() if line.endswith(("| yes |", "| no |"))]
    assert [row.split("|")[1].strip() for row in rows] == ["40", "20"]


def test_memory_of_a_gpu_is_not_said_to_be_the_server_s() -> None:
    trend = Trend(500, 645, 645, None)
    process = ProcessFootprint("tritonserver", "", 7, 0.0, 9.0, trend, trend, trend)
    footprint = Footprint(1.0, 9.0, [process], [GpuFootprint(1, "an H100", trend)])
    page = report.of_run(dataclasses.replace(make_run(), footprint=footprint), "run")
    assert "| GPU 1, an H100: in use by all programs | 500, 645, 645 | – | – |" in report.markdown(page)


def test_power_is_shown_with_where_it_comes_from() -> None:
    page = report.of_run(throttled_run(), "run")
    text, markdown = Reader(report.html(page)).text, report.markdown(page)
    for figure in (
        "images per joule, GPU",
        "1 GPU took 6,340 J (give or take 100) by NVML, 634 W: 0.0315 images per joule",
        "1 CPU took 1,200 J (give or take 100) by RAPL, 120 W: 0.167 images per joule",
        "NVIDIA H100 80GB HBM3 was throttled in 3 of 10 intervals (power cap), and the p99 is 4.0 times the p50",
        "634 of 700",
        "package-0 (intel-rapl:0), by RAPL: the whole processor.",
    ):
        assert figure in text, figure
        assert figure in markdown, figure
    assert "Power over time" in text


def test_power_that_was_not_measured_has_a_reason_and_no_zero() -> None:
    silent = dataclasses.replace(make_run(), power=power())
    text = Reader(report.html(report.of_run(silent, "run"))).text
    assert "Not measured: this machine shows no energy of its processor." in text
    assert "images per joule" not in text
    unknown = dataclasses.replace(make_run(), power=power(gpu(None, watts=[300.0] * 5)))
    text = Reader(report.html(report.of_run(unknown, "run"))).text
    assert "by NVML: no energy, since its counter began anew meanwhile." in text
    assert "300 of 700 – –" in text
    assert "images per joule" not in text


def test_a_busy_load_generator_is_shown() -> None:
    run = make_run()
    busy = dataclasses.replace(run, client=dataclasses.replace(run.client, busiest=0.93))
    assert '<p class="note warning">the load generator used 93% of a core' in report.html(report.of_run(busy, "run"))
    assert "the load generator used" not in report.html(report.of_run(run, "run"))


def test_what_was_not_sent_is_shown() -> None:
    run = make_run()
    unsent = dataclasses.replace(run, client=dataclasses.replace(run.client, unsent=600))
    for text in (report.html(report.of_run(unsent, "run")), report.markdown(report.of_run(unsent, "run"))):
        assert "of 1,000 requests that were due, the latencies leave out 600 that were due and were not sent" in text
        assert "not sent" in text
    assert "not sent" not in report.html(report.of_run(run, "run"))


def test_requests_without_a_trace_are_shown() -> None:
    run = make_run()
    lost = dataclasses.replace(run, attribution=dataclasses.replace(run.attribution, requests=390))
    assert "10 of 400 traced requests left no whole trace" in report.markdown(report.of_run(lost, "run"))


def test_of_how_many_requests_the_traces_are_is_shown() -> None:
    run = make_run()
    sampled = dataclasses.replace(run.attribution, requests=100, trace_rate=4)
    assert sampled.basis() == "the traces of 1 request in 4"
    text = report.markdown(report.of_run(dataclasses.replace(run, attribution=sampled), "run"))
    assert "(100 requests, 1 in 4)" in text
    assert "left no whole trace" not in text


def test_a_run_without_an_answer_says_so(every_page: dict[str, Page]) -> None:
    text = Reader(report.html(every_page["failed"])).text
    assert "No request succeeded" in text
    assert "12 of 12 requests failed: 12 ServerUnavailable" in text
    assert "nobody answers" in text
    assert "Where the time goes" not in text
