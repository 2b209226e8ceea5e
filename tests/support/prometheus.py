"""Read a metrics page of Triton."""

from __future__ import annotations

import re
import time
import urllib.request
from collections import defaultdict
from collections.abc import Mapping

from triptych.serving import TritonServer

_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')

Samples = dict[str, list[tuple[dict[str, str], float]]]


def scrape(server: TritonServer) -> Samples:
    """Return all samples of a server by the metric's name."""
    with urllib.request.urlopen(server.metrics_url, timeout=5) as page:
        return parse(page.read().decode())


def parse(page: str) -> Samples:
    samples: Samples = defaultdict(list)
    for name, labels, value in _SAMPLE.findall(page):
        samples[name].append((dict(_LABEL.findall(labels)), float(value)))
    return samples


def total(samples: Samples, name: str, **labels: str) -> float:
    """Return the sum over every sample of a metric that has these labels, as `sum(metric{…})` does."""
    return sum(value for of, value in samples.get(name, []) if labels.items() <= of.items())


def wait_for(server: TritonServer, expected: Mapping[str, float]) -> Samples:
    """Scrape until each metric's sum is what is expected, and return that page.

    A page may come in the middle of what one request counts, so wait for all that is asserted.
    """
    for _ in range(60):
        samples = scrape(server)
        sums = {name: total(samples, name) for name in expected}
        if sums == expected:
            return samples
        time.sleep(0.1)
    raise AssertionError(f"got {sums}, not {expected}")
