"""Triton's metrics of its GPUs, from an endpoint whose text is planted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.endpoint import Endpoint
from triptych.measure.power.figures import Gauges
from triptych.measure.power.metrics import TritonMetrics, parse, url_of

ONE = "GPU-c06bbf33-c250-ca45-579b-19134b518844"

TEXT = f"""\
# HELP nv_inference_request_success Number of successful inference requests, all batch sizes
# TYPE nv_inference_request_success counter
nv_inference_request_success{{model="detection",version="1"}} 900
nv_inference_request_success{{model="detector",version="1"}} 500
nv_inference_request_success{{model="detector",version="2"}} 400
# TYPE nv_gpu_utilization gauge
nv_gpu_utilization{{gpu_uuid="{ONE}"}} 0.35
nv_gpu_memory_total_bytes{{gpu_uuid="{ONE}"}} 85520809984.000000
nv_gpu_memory_used_bytes{{gpu_uuid="{ONE}"}} 33763098624.000000
nv_gpu_power_usage{{gpu_uuid="{ONE}"}} 251.091000
nv_gpu_power_limit{{gpu_uuid="{ONE}"}} 400.000000
# TYPE nv_energy_consumption counter
nv_energy_consumption{{gpu_uuid="{ONE}"}} 3594017.400000
nv_pinned_memory_pool_used_bytes 0
"""


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with Endpoint(TEXT) as made:
        yield made


def test_the_text_is_read() -> None:
    metrics = parse(TEXT)
    assert metrics["nv_energy_consumption"] == {ONE: 3594017.4}
    assert metrics["nv_inference_request_success"] == {"detection": 900, "detector": 900}, "of all versions"
    assert "nv_pinned_memory_pool_used_bytes" not in metrics
    assert parse('nv_energy_consumption{gpu_uuid="a"} soon\n<html>') == {}


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("gpu-host:8001", "http://gpu-host:8002/metrics"),
        ("dns:///gpu-host:8001", "http://gpu-host:8002/metrics"),
        ("[2001:db8::1]:9001", "http://[2001:db8::1]:8002/metrics"),
        ("unix:/run/triton.sock", ""),
    ],
)
def test_where_the_metrics_are(address: str, url: str) -> None:
    assert url_of(address) == url


def test_every_figure_has_our_units(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    source = TritonMetrics(endpoint.url)
    assert [(one.kind, one.id, one.source, one.limit_w) for one in source.identities.values()] == [
        ("GPU", ONE, "triton", 400.0)
    ]
    reading = source.read()[ONE]
    assert reading.energy_j == 3594017.4
    assert reading.gauges == Gauges(power_w=251.091, utilization=0.35, memory_mb=33763.098624)
    assert reading.gauges.throttled is None, "Triton does not say"


def test_what_triton_cannot_read_is_zero_there_and_not_known_here(endpoint: Endpoint) -> None:
    endpoint.text = "".join(
        f'{name}{{gpu_uuid="{ONE}"}} 0\n' for name in ("nv_energy_consumption", "nv_gpu_power_usage")
    )
    reading = TritonMetrics(endpoint.url).read()[ONE]
    assert reading.gauges == Gauges()


def test_metrics_of_another_server_are_refused(endpoint: Endpoint) -> None:
    source = TritonMetrics(endpoint.url)
    source.read()
    endpoint.text = TEXT.replace('"detection",version="1"} 900', '"detection",version="1"} 1000')
    source.read()
    assert source.objection(100) == ""
    assert source.objection(101) == (
        f"the metrics at {endpoint.url} are not those of this server: they counted 100 requests, and 101 were "
        "answered; name the URL of its own"
    )


def test_metrics_that_do_not_answer_for_a_while_are_a_gap(endpoint: Endpoint) -> None:
    source = TritonMetrics(endpoint.url)
    endpoint.text = ""
    assert source.read() == {}
    endpoint.text = TEXT
    assert list(source.read()) == [ONE]


def test_a_server_without_gpu_metrics_says_why(endpoint: Endpoint) -> None:
    endpoint.text = 'nv_inference_request_success{model="detection",version="1"} 900\n'
    source = TritonMetrics(endpoint.url)
    assert source.identities == {}
    assert "have no nv_energy_consumption" in source.missing


def test_what_is_no_url_is_said() -> None:
    for url in ("http://[gpu-host/metrics", "http://gpu-host:port/metrics"):
        assert f"metrics at {url} cannot be read" in TritonMetrics(url).missing


def test_where_nobody_listens_the_reason_is_said(nobody: str) -> None:
    source = TritonMetrics(f"http://{nobody}/metrics")
    assert source.identities == {}
    assert "cannot be read ([Errno 111] Connection refused)" in source.missing
