"""What Grafana and the alerts ask of Prometheus, and where the tools of Prometheus are."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import NamedTuple

import yaml

from support import ROOT

RULES = ROOT / "docker" / "prometheus" / "rules"
DASHBOARDS = ROOT / "docker" / "grafana" / "dashboards"
_RAW = re.compile(r"\b(?:nv|triptych|envoy)_[a-z0-9_]+")


class Query(NamedTuple):
    """A query of a panel.

    Attributes:
        name: dashboard and panel.
        promql: the query.
        needs_gpu: whether it has samples only where Triton sees a GPU.
    """

    name: str
    promql: str
    needs_gpu: bool


def queries() -> list[Query]:
    """Return every query of every panel. With a proxy, and after a minute of traffic, each has samples."""
    found = []
    for path in sorted(DASHBOARDS.glob("*.json")):
        dashboard = json.loads(path.read_text())
        for panel in dashboard["panels"]:
            for target in panel["targets"]:
                promql = target["expr"]
                found.append(Query(f"{dashboard['title']}: {panel['title']}", promql, "nv_gpu_" in promql))
    return found


def alerts() -> list[dict[str, object]]:
    """Return the alerts as their file has them."""
    groups = yaml.safe_load((RULES / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def metrics() -> list[str]:
    """Return the metrics that rules and panels rest on, without those of a GPU and those that are off by default."""
    text = "".join(path.read_text() for path in RULES.glob("*.yml")) + "".join(query.promql for query in queries())
    names = set(_RAW.findall(text))
    return sorted(name for name in names if not name.startswith("nv_gpu_") and "summary" not in name)


def tool(name: str) -> str | None:
    """Return where promtool or amtool is: on PATH, or where the containers of the development machine are laid out."""
    containers = Path(os.environ.get("CTR_DIR") or Path.home() / ".cache" / "containers")
    unpacked = [containers / place / "usr" / "bin" / name for place in ("dx", "dk")]
    return shutil.which(name) or next((str(path) for path in unpacked if path.is_file()), None)
