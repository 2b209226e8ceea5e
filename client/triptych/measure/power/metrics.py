"""Power of a server's GPUs by the metrics that Triton shows of them: for a server on another machine."""

from __future__ import annotations

import contextlib
import re
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Mapping
from http.client import HTTPException
from urllib.parse import urlsplit

from triptych.contract import DETECTION
from triptych.measure.power.figures import Gauges, Identity
from triptych.measure.power.source import Reading
from triptych.wire.channel import host_of, is_here

PORT = 8002
"""Triton's own, unless it is told another."""

TIMEOUT_S = 1.0

_UNREADABLE = (OSError, HTTPException, ValueError)

_LINE = re.compile(r"^(nv_gpu_\w+|nv_energy_consumption|nv_inference_request_success)\{([^}]*)\}\s+(\S+)", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')

Metrics = Mapping[str, Mapping[str, float]]
"""By name: the value of each GPU by its UUID, or of all versions of a model by its name."""


def url_of(address: str) -> str:
    """Return where the metrics of a server at HOST:PORT are unless it was told another port; empty for a socket."""
    host = host_of(address)
    return f"http://{host}:{PORT}/metrics" if host else ""


def parse(text: str) -> Metrics:
    """Read Prometheus's text; what is not of GPUs, and no count of requests, is left out."""
    metrics: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
    for name, labels, value in _LINE.findall(text):
        of = dict(_LABEL.findall(labels))
        with contextlib.suppress(ValueError):
            number = float(value)
            if key := of.get("gpu_uuid") or of.get("model"):
                metrics[name][key] += number
    return metrics


class TritonMetrics:
    """The GPUs of a server, as its metrics have them.

    Triton renews them every two seconds by default (`--metrics-interval-ms`), which the energy's uncertainty tells. A
    value that it cannot read is 0 there, and not known here.
    """

    period_s = 0.5

    def __init__(self, url: str) -> None:
        """Look which GPUs there are at `url`."""
        self.identities: dict[str, Identity] = {}
        self.missing = ""
        self._url = url
        self._counted: list[float] = []
        try:
            here = is_here(f"{urlsplit(url).hostname}:{PORT}")
            proxies = urllib.request.ProxyHandler({} if here else None)  # None: as the environment says
            self._opener = urllib.request.build_opener(proxies)
            metrics = self._get()
        except _UNREADABLE as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            self.missing = (
                f"the server's metrics at {url} cannot be read ({reason}); if they are elsewhere, name the URL"
            )
            return
        limits_w = metrics.get("nv_gpu_power_limit", {})
        for uuid in metrics.get("nv_energy_consumption", {}):
            self.identities[uuid] = Identity("GPU", "GPU of the server", uuid, "triton", limits_w.get(uuid) or None)
        if not self.identities:
            self.missing = (
                f"the server's metrics at {url} have no nv_energy_consumption: it sees no GPU, or was started with "
                "--allow-gpu-metrics=false, as `triptych serve` does"
            )

    def read(self) -> Mapping[str, Reading]:
        """Read the metrics; nothing where they do not answer."""
        try:
            metrics = self._get()
        except _UNREADABLE:
            return {}
        self._counted.append(metrics.get("nv_inference_request_success", {}).get(DETECTION.name, 0.0))
        return {uuid: _reading(metrics, uuid) for uuid in self.identities}

    def objection(self, answered: int) -> str:
        """Say whether the metrics counted fewer requests than were answered: then they are of another server."""
        counted = self._counted[-1] - self._counted[0] if self._counted else 0.0
        if counted >= answered or counted < 0:  # below zero it was started again, which its energy shows
            return ""
        return (
            f"the metrics at {self._url} are not those of this server: they counted {counted:,.0f} requests, and "
            f"{answered:,} were answered; name the URL of its own"
        )

    def close(self) -> None:
        """Do nothing: no connection stays open."""

    def _get(self) -> Metrics:
        with self._opener.open(self._url, timeout=TIMEOUT_S) as answer:
            return parse(answer.read().decode(errors="replace"))


def _reading(metrics: Metrics, uuid: str) -> Reading:
    def known(name: str) -> float | None:
        return metrics.get(name, {}).get(uuid)

    memory_bytes = known("nv_gpu_memory_used_bytes") or None
    return Reading(
        known("nv_energy_consumption"),
        Gauges(
            power_w=known("nv_gpu_power_usage") or None,
            utilization=known("nv_gpu_utilization"),
            memory_mb=memory_bytes / 1e6 if memory_bytes else None,
        ),
    )
