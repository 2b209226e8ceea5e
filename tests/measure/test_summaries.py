"""Triton's metrics read for their summaries."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from rich.console import Console

from triptych.errors import ContractError
from triptych.measure import summaries
from triptych.measure.attribution import from_statistics
from triptych.measure.window import Window

FAMILIES = ("request", "queue", "compute_input", "compute_infer", "compute_output")

# Microseconds, as Triton 2.51 gave them with the demo: p50, p95 and p99 of each of the families.
RECORDED = {
    "detector": ((39062, 55370, 95585), (76, 183, 306), (163, 329, 6962), (38732, 53701, 86722), (101, 130, 200)),
    "preprocess": ((2765, 6698, 7767), (24, 130, 135), (35, 43, 45), (2468, 4927, 4958), (230, 3802, 4032)),
    "detection": ((44977, 59261, 73712), (1, 3, 4), (228, 352, 394), (42187, 56981, 72149), (1563, 5482, 5839)),
    "postprocess": ((1659, 4966, 5298), (88, 122, 128), (29, 41, 41), (811, 1293, 1385), (506, 4112, 4151)),
}


def metrics(recorded=RECORDED, quantiles=("0.5", "0.95", "0.99"), version="1") -> str:
    """Metrics as Triton writes them, counters and gauges beside the summaries."""
    lines = [
        "# HELP nv_inference_request_success Number of successful inference requests, all batch sizes",
        "# TYPE nv_inference_request_success counter",
        *(f'nv_inference_request_success{{model="{model}",version="{version}"}} 40' for model in recorded),
    ]
    for index, family in enumerate(FAMILIES):
        name = f"nv_inference_{family}_summary_us"
        lines += [f"# HELP {name} Summary of something in microseconds", f"# TYPE {name} summary"]
        for model, values in recorded.items():
            labels = f'model="{model}",version="{version}"'
            lines += [f"{name}_count{{{labels}}} 40", f"{name}_sum{{{labels}}} 2070087"]
            for quantile, value in zip(quantiles, values[index], strict=True):
                lines.append(f'{name}{{{labels},quantile="{quantile}"}} {value}')
    lines += ["# TYPE nv_cpu_utilization gauge", "nv_cpu_utilization 0.5"]
    return "\n".join(lines) + "\n"


def test_milliseconds_by_stage_and_part():
    found = summaries.parse(metrics())
    assert found["detector"] == pytest.approx({"p50": 39.062, "p95": 55.370, "p99": 95.585})
    assert found["detector queue"] == pytest.approx({"p50": 0.076, "p95": 0.183, "p99": 0.306})
    assert found["preprocess input"]["p95"] == pytest.approx(0.043)
    assert found["postprocess infer"]["p99"] == pytest.approx(1.385)
    assert found["detector output"]["p50"] == pytest.approx(0.101)
    assert len(found) == 3 * 5, "the ensemble is no stage"


def test_they_are_what_the_attribution_takes():
    found = from_statistics(Window([50.0], 1.0, {}), summaries.parse(metrics()))
    assert (found.source, list(found.breakdowns)) == ("summaries", ["mean"])
    assert found.percentiles_ms["detector"]["p99"] == pytest.approx(95.585)


def test_more_quantiles_than_are_wanted():
    more = {model: [(1, *value, 10**6) for value in values] for model, values in RECORDED.items()}
    assert summaries.parse(metrics(more, ("0.1", "0.5", "0.95", "0.99", "0.999"))) == summaries.parse(metrics())


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param(metrics({}), id="no-summaries"),
        pytest.param(metrics({"preprocess": RECORDED["preprocess"]}), id="no-detector"),
        pytest.param(metrics(quantiles=("0.5", "0.9", "0.99")), id="no-p95"),
        pytest.param(metrics({name: [["Nan"] * 3] * 5 for name in RECORDED}), id="idle-for-a-minute"),
        pytest.param(metrics().replace("compute_infer", "other"), id="no-infer"),
        pytest.param(metrics().replace("version=", "build="), id="other-labels"),
    ],
)
def test_what_is_not_whole_is_none(text):
    assert summaries.parse(text) is None


def test_of_two_versions_the_newest_that_took_requests():
    older = {"detector": [(1, 2, 3)] * 5}
    idle = {"detector": [["Nan"] * 3] * 5}
    text = metrics(older, version="2") + metrics(version="10") + metrics(idle, version="11")
    assert summaries.parse(text) == summaries.parse(metrics())


@pytest.mark.parametrize("text", ["<html>busy</html>", 'a{b="c} 1', metrics().replace("39062", "many")])
def test_what_is_no_metrics_is_an_error(text):
    with pytest.raises(ValueError):  # noqa: PT011  (whatever the library says)
        summaries.parse(text)


@pytest.fixture
def page() -> Iterator[tuple[str, dict]]:
    """A URL, and what it answers."""
    answer = {"status": 200, "body": metrics()}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(answer["status"])
            self.end_headers()
            self.wfile.write(answer["body"].encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/metrics", answer
        server.shutdown()
        thread.join()


def test_read_over_http(page):
    url, answer = page
    assert summaries.read(url) == summaries.parse(metrics())
    for status, body in ((404, metrics()), (200, "<html>busy</html>"), (200, "")):
        answer.update(status=status, body=body)
        assert summaries.read(url) is None, (status, body)


def test_nobody_there_is_none():
    assert summaries.read("http://127.0.0.1:9/metrics") is None


@pytest.mark.parametrize("url", ["127.0.0.1:8002/metrics", "file:///etc/passwd", ""])
def test_a_url_of_something_else_is_a_sentence(url):
    with pytest.raises(ContractError, match="must begin with http:// or https://"):
        summaries.read(url)


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("127.0.0.1:8001", "http://127.0.0.1:8002/metrics"),
        ("[::1]:8001", "http://[::1]:8002/metrics"),
        ("triton.example:8001", "http://triton.example:8002/metrics"),
        ("127.0.0.1:34567", None),  # on 8002 there may be another server's
    ],
)
def test_where_the_metrics_most_likely_are(address, url):
    assert summaries.default_url(address) == url


def test_the_table_has_a_row_for_every_part():
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(summaries.percentile_table(summaries.parse(metrics())))
    rows = [line.replace("│", " ").split() for line in console.export_text().splitlines() if line.startswith("│")]
    assert [row[0] for row in rows] == [
        name
        for stage in ("preprocess", "detector", "postprocess")
        for name in (stage, "queue", "input", "infer", "output")
    ]
    assert rows[5] == ["detector", "39.06", "55.37", "95.58"]
