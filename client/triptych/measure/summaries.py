"""Percentiles of each stage from Triton's metrics, where its traces cannot be read.

A server that was started with `--metrics-config summary_latencies=true` (`triptych serve --summaries`) has quantiles of
each model's times in its Prometheus metrics. They slide: at any moment they are those of all requests, whoever sent
them, of the last 48 to 60 s. A load's warm-up is among them, and of a load that takes longer they know the end alone.
Each is for itself: the slowest percent of one stage need not be that of another, so they do not add up.
"""

from __future__ import annotations

import math
import urllib.request
from collections import defaultdict
from collections.abc import Mapping
from http.client import HTTPException

from prometheus_client.parser import text_string_to_metric_families
from rich.table import Table

from triptych.contract import STAGES
from triptych.errors import ContractError
from triptych.measure.attribution import PERCENTS
from triptych.measure.traces import PARTS

US_PER_MS = 1e3

GRPC_PORT, METRICS_PORT = 8001, 8002
"""Triton's own choice. Who serves gRPC elsewhere has the metrics elsewhere too."""

FETCH_TIMEOUT_S = 5.0

WHAT_THEY_ARE = (
    "Percentiles from the summaries in the server's metrics: each for itself (they do not add up), of all requests of "
    "the last 48 to 60 s, those of the warm-up and of other clients among them."
)

_LABELS = {"model", "version", "quantile"}

_WHOLE = "request"
_FAMILIES = {
    "nv_inference_request_summary_us": _WHOLE,
    "nv_inference_queue_summary_us": "queue",
    "nv_inference_compute_input_summary_us": "input",
    "nv_inference_compute_infer_summary_us": "infer",
    "nv_inference_compute_output_summary_us": "output",
}


def default_url(address: str) -> str | None:
    """Where the metrics of the server at `address`, host:port, most likely are; None where its ports are not Triton's.

    Another server may hold Triton's own metrics port on the same host, whose times these are not.
    """
    host, _, port = address.rpartition(":")
    return f"http://{host}:{METRICS_PORT}/metrics" if port == str(GRPC_PORT) else None


def check_url(url: str) -> str:
    """The URL, if metrics can be fetched from one like it.

    Raises:
        ContractError: it is no URL of HTTP.
    """
    if not url.startswith(("http://", "https://")):
        raise ContractError(f"the metrics' URL must begin with http:// or https://, but is {url!r}")
    return url


def read(url: str) -> dict[str, dict[str, float]] | None:
    """The percentiles at a metrics URL, as `parse` has them; None if nobody answers there, or not with summaries.

    Raises:
        ContractError: it is no URL of HTTP.
    """
    try:
        with urllib.request.urlopen(check_url(url), timeout=FETCH_TIMEOUT_S) as answer:  # noqa: S310  (checked)
            return parse(answer.read().decode(errors="replace"))
    except (OSError, HTTPException, ValueError):
        return None


def parse(text: str) -> dict[str, dict[str, float]] | None:
    """p50, p95 and p99 in milliseconds, by stage (its whole request) and by `stage part`, as `Attribution` has them.

    Of several versions of a model the newest that took requests counts. None unless every stage has every figure: a
    server may have no summaries, other quantiles, or no request of the last minute (Triton says NaN then).

    Raises:
        ValueError: the text is not in Prometheus' format.
    """
    values: defaultdict[tuple[str, str], dict[int, dict[str, float]]] = defaultdict(dict)
    for family in text_string_to_metric_families(text):
        part = _FAMILIES.get(family.name, "")
        for sample in family.samples if part else ():
            labels = sample.labels
            if labels.keys() >= _LABELS and math.isfinite(sample.value):
                of_version = values[labels["model"], part].setdefault(int(labels["version"]), {})
                of_version[f"p{float(labels['quantile']) * 100:g}"] = sample.value / US_PER_MS
    found: dict[str, dict[str, float]] = {}
    for stage in STAGES:
        for part in (_WHOLE, *PARTS):
            versions = values.get((stage.name, part), {})
            newest = versions[max(versions)] if versions else {}
            try:
                percentiles = {f"p{percent}": newest[f"p{percent}"] for percent in PERCENTS}
            except KeyError:
                return None
            found[stage.name if part == _WHOLE else f"{stage.name} {part}"] = percentiles
    return found


def percentile_table(percentiles_ms: Mapping[str, Mapping[str, float]]) -> Table:
    """The percentiles for a terminal."""
    table = Table(title="Percentiles of each stage for itself (ms)", title_justify="left")
    table.add_column("stage")
    for percent in PERCENTS:
        table.add_column(f"p{percent}", justify="right")
    for name, values in percentiles_ms.items():
        stage, _, part = name.partition(" ")
        shown = (f"{values[f'p{percent}']:.2f}" for percent in PERCENTS)
        table.add_row(f"  {part}" if part else stage, *shown, style="dim" if part else None)
    return table
