"""Rules, alerts, dashboards: checked with the tools of Prometheus, and against the docs and the real server's page."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from support import ROOT
from support.prometheus import scrape
from support.promql import RULES, alerts, metrics, queries, tool
from triptych import DetectionClient
from triptych.serving import TritonServer

ALERTS = [str(alert["alert"]) for alert in alerts()]


def run(name: str, *arguments: str) -> str:
    path = tool(name)
    if path is None:
        pytest.skip(f"needs {name}, which is not here: Debian has it in `prometheus` and `prometheus-alertmanager`")
    done = subprocess.run([path, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_takes_the_rules() -> None:
    run("promtool", "check", "rules", *map(str, RULES.glob("*.yml")))


def test_promtool_takes_the_configuration() -> None:
    run("promtool", "check", "config", "--syntax-only", str(RULES.parent / "prometheus.yml"))


def test_each_alert_fires_when_it_should_and_not_otherwise() -> None:
    run("promtool", "test", "rules", str(Path(__file__).parent / "alerts.test.yml"))


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_is_tested_both_ways(alert: str) -> None:
    document = yaml.safe_load((Path(__file__).parent / "alerts.test.yml").read_text())
    expected = [
        bool(test["promql_expr_test"][0]["exp_samples"])
        for test in document["tests"]
        if f'alertname="{alert}"' in test["promql_expr_test"][0]["expr"]
    ]
    assert set(expected) == {True, False}


def test_amtool_takes_the_receivers() -> None:
    run("amtool", "check-config", str(ROOT / "docker" / "alertmanager" / "alertmanager.yml"))


def test_each_alert_has_its_runbook() -> None:
    page = (ROOT / "docs" / "observe.md").read_text()
    anchors = {heading.strip().lower() for heading in re.findall(r"^### (.+)$", page, re.MULTILINE)}
    for alert in alerts():
        annotations = alert["annotations"]
        assert isinstance(annotations, dict)
        path, _, anchor = annotations["runbook_url"].partition("#")
        assert path == "docs/observe.md"
        assert anchor == str(alert["alert"]).lower()
        assert anchor in anchors
    assert anchors == {name.lower() for name in ALERTS}, "a runbook without an alert"


def test_panels_have_names_and_queries_of_their_own() -> None:
    found = queries()
    assert len(found) > 20
    assert len({query.promql for query in found}) == len(found)


def test_promtool_parses_each_query(tmp_path: Path) -> None:
    rules = [{"record": f"panel{number}", "expr": query.promql} for number, query in enumerate(queries())]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    run("promtool", "check", "rules", str(tmp_path / "rules.yml"))


@pytest.mark.triton
def test_the_real_server_exports_what_the_rules_ask_for(demo_server: TritonServer) -> None:
    with DetectionClient(demo_server.grpc_address, timeout_s=30) as client:
        assert client.detect(ROOT / "docs" / "board.jpg", score_threshold=0.01)
    wanted = {name for name in metrics() if not name.startswith("envoy_")}
    for _ in range(50):
        missing = wanted - set(scrape(demo_server))
        if not missing:
            break
        time.sleep(0.1)
    assert not missing
