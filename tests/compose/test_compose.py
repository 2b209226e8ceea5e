"""The services of docker-compose.yml, really up: what a client outside sees, and what faults cost."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from compose.engine import Engine, Project
from support import ROOT
from support.promql import alerts, queries

pytestmark = [pytest.mark.compose, pytest.mark.timeout(600)]

CALLER = Path(__file__).parent / "caller.py"
BOARD = ROOT / "docs" / "board.jpg"
KILL = (
    "import os, psutil; [os.kill(p.pid, 9) for p in psutil.process_iter(['cmdline']) "
    "if 'serve' in (p.info['cmdline'] or [])]"
)


def call(engine: Engine, ca: Path | str, seconds: float = 0) -> dict[str, Any]:
    done = engine.run_outside(sys.executable, CALLER, BOARD, str(ca), str(seconds))
    answers: dict[str, Any] = json.loads(done.stdout)
    return answers


def health(engine: Engine, container: str) -> tuple[str, int]:
    state = json.loads(engine.run("docker", "inspect", container).stdout)[0]
    return state["State"]["Health"]["Status"], state["RestartCount"]


def test_every_service_is_locked_down(engine: Engine, env_file: Path) -> None:
    services = Project(engine, "triptych-config", env_file, profile="*").config()["services"]
    assert {
        "triton",
        "triton-cpu",
        "engine-builder",
        "builder",
        "envoy",
        "prometheus",
        "alertmanager",
        "grafana",
        "locust",
    } <= set(services)
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert int(service["user"].split(":")[0]) > 0, name
        assert int(service["mem_limit"]) >= 2**30, name
        assert service["pids_limit"] >= 512, name
        assert not {"privileged", "cap_add", "pid", "devices", "env_file"} & set(service), name
        assert service.get("networks") or service["network_mode"] == "none", name
        assert "healthcheck" in service or service["restart"] == "no", name
        for mount in service.get("volumes", []):
            assert mount.get("read_only") or mount["type"] == "volume", (name, mount)
        for port in service.get("ports", []):
            assert port["host_ip"] == "127.0.0.1", name
        for key, value in (service.get("environment") or {}).items():
            assert not re.search("(?i)password|key", key) or value.startswith("/run/secrets/"), (name, key)
    for server in (services["triton"], services["triton-cpu"]):
        assert [mount["read_only"] for mount in server["volumes"]] == [True]
        assert {secret["source"] for secret in server["secrets"]} >= {"server.pem", "server.key", "models.key"}
        assert int(server["environment"]["EXIT_TIMEOUT_S"]) < 45
        assert "ports" not in server
    assert services["triton"]["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]


def test_every_image_has_a_version_and_those_of_others_a_digest() -> None:
    images = dict(re.findall(r"^(\w+_IMAGE)=(.*)$", (ROOT / ".env").read_text(), re.MULTILINE))
    for name, image in images.items():
        assert re.fullmatch(r"[\w./-]+:v?\d[\w.-]*(@sha256:[0-9a-f]{64})?", image), image
        # Not known where this was written: the image of NVIDIA, and that of Python, which moves with its fixes.
        assert "@sha256:" in image or name in ("TRITON_IMAGE", "PYTHON_IMAGE"), image
    text = (ROOT / "docker-compose.yml").read_text()
    assert not re.search(r"^ +image: (?!\$\{|triptych-\w+:\$\{)", text, re.MULTILINE)


def test_a_client_outside_detects_over_tls(engine: Engine, project: Project, secrets: Path) -> None:
    answers = call(engine, secrets / "ca.pem")
    assert answers["failures"] == []
    assert len(answers["objects"]) == 3
    assert min(answers["objects"]) > 0


def test_a_client_without_tls_gets_nothing(engine: Engine, project: Project) -> None:
    answers = call(engine, "")
    assert answers["objects"] == []
    assert "ServerUnavailable" in answers["failures"][0]


def test_prometheus_scrapes_the_servers_and_envoy(engine: Engine, project: Project) -> None:
    for job in ("triton", "envoy"):
        query = f'http://127.0.0.1:9090/api/v1/query?query=up{{job="{job}"}}'
        for _ in range(30):
            found = json.loads(project("exec", "prometheus", "wget", "-q", "-O", "-", query).stdout)["data"]["result"]
            if found and found[0]["value"][1] == "1":
                break
            time.sleep(1)
        else:
            pytest.fail(f"{job}: {found}")


def test_promtool_takes_the_configuration_and_the_rules(project: Project) -> None:
    project("exec", "prometheus", "promtool", "check", "config", "/etc/prometheus/prometheus.yml")


def test_locust_with_two_workers_sends_over_tls_and_ends_with_0(engine: Engine, project: Project) -> None:
    load = ("--profile", "load")
    project(*load, "up", "--detach", "--scale", "locust-worker=2", "--no-deps", "locust-worker")
    words = ("--headless", "--users", "4", "--run-time", "15s", "--expect-workers", "2", "--only-summary")
    done = project(*load, "run", "--rm", "--use-aliases", "--no-deps", "locust", *words, timeout_s=120)
    text = done.stdout + done.stderr
    assert re.search(r"Aggregated +[1-9]\d* +0\(0\.00%\)", text), text[-3000:]
    project(*load, "stop", "locust-worker")


def test_every_panel_and_every_alert_finds_what_it_asks_for(project: Project) -> None:
    """Panels have samples after the load before. Alerts may have none; each of their metrics must."""
    asked = {query.name + query.promql: query.promql for query in queries() if not query.needs_gpu}
    deadline = time.monotonic() + 60
    while asked and time.monotonic() < deadline:
        asked = {name: promql for name, promql in asked.items() if not samples(project, promql)}
        time.sleep(1)
    assert asked == {}
    for alert in alerts():
        samples(project, str(alert["expr"]))


def samples(project: Project, promql: str) -> list[Any]:
    """Ask Prometheus, and return the samples.

    Raises:
        AssertionError: it does not understand the query.
    """
    promql = promql.replace("$__rate_interval", "1m").replace("$__interval", "15s").replace("$__range", "5m")
    url = "http://127.0.0.1:9090/api/v1/query?query=" + quote(promql)
    answer = json.loads(project("exec", "prometheus", "wget", "-q", "-O", "-", url).stdout)
    assert answer["status"] == "success", answer
    found: list[Any] = answer["data"]["result"]
    return found


def test_a_server_cannot_change_what_it_serves(project: Project) -> None:
    for path in ("/srv/triptych/model_repository/detector/x", "/srv/triptych/x", "/usr/x"):
        assert project("exec", "triton-cpu", "touch", path, check=False).returncode != 0


def test_a_server_that_died_is_healthy_again(engine: Engine, project: Project, secrets: Path) -> None:
    (container,) = project.containers("triton-cpu")
    restarts = health(engine, container)[1]
    project("exec", "triton-cpu", "python", "-c", KILL, check=False)
    for _ in range(60):
        if health(engine, container) == ("healthy", restarts + 1):
            break
        time.sleep(1)
    assert health(engine, container) == ("healthy", restarts + 1)
    time.sleep(3)  # Envoy asks every second
    assert call(engine, secrets / "ca.pem")["failures"] == []


@pytest.mark.parametrize("ending", ["KILL", "TERM"])
def test_one_of_two_servers_ends_and_no_request_fails(
    engine: Engine, project: Project, secrets: Path, ending: str
) -> None:
    project("up", "--detach", "--wait", "--scale", "triton-cpu=2", "--no-recreate", "triton-cpu")
    time.sleep(8)  # Envoy looks for new servers every five seconds
    command = [*engine.outside, sys.executable, str(CALLER), str(BOARD), str(secrets / "ca.pem"), "12"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(engine.environment)) as load:
        time.sleep(4)
        engine.run("docker", "kill", "--signal", ending, project.containers("triton-cpu")[-1])
        answers = json.loads(load.communicate(timeout=60)[0])
    assert answers["failures"] == []
    assert len(answers["objects"]) > 30
    print(f"{len(answers['objects'])} requests, 0 failed")


def test_a_detector_is_published_while_load_flows_and_no_request_fails(
    engine: Engine, project: Project, secrets: Path
) -> None:
    project("up", "--detach", "--wait", "--scale", "triton-cpu=2", "--no-recreate", "triton-cpu")
    command = [*engine.outside, sys.executable, str(CALLER), str(BOARD), str(secrets / "ca.pem"), "40"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(engine.environment)) as load:
        time.sleep(2)
        done = project("--profile", "build", "run", "--rm", "builder", "/in/pcb_qat.onnx", check=False)
        answers = json.loads(load.communicate(timeout=90)[0])
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(r":8001 serves version 2", done.stdout)) == 2, done.stdout
    assert answers["failures"] == []
    print(f"{len(answers['objects'])} requests while a version was published, 0 failed")


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("rm model_repository/detector/1/model.onnx", "model.onnx"),
        ("""sed -i '1i name: "wrong"' model_repository/detector/config.pbtxt""", "is of a model called 'wrong'"),
    ],
)
def test_a_detector_that_no_server_would_load_ends_up_with_the_reason(
    engine: Engine, env_file: Path, script: str, reason: str
) -> None:
    broken = Project(engine, "triptych-broken", env_file)
    try:
        broken("--profile", "build", "run", "--rm", "--entrypoint", "sh", "builder", "-c", script)
        began = time.monotonic()
        done = broken("up", "--detach", "--wait", "--wait-timeout", "120", "triton-cpu", check=False)
        assert done.returncode == 1
        assert time.monotonic() - began < 60
        assert reason in broken("logs", "--no-color", "doctor-cpu").stdout
    finally:
        broken("--profile", "*", "down", "--volumes", "--remove-orphans")
    assert broken.leftovers() == []
