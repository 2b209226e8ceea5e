"""The manifests of deploy/kubernetes, rendered: valid, as strict as docker-compose.yml, and of one mind with it.

There is no API server here, so nothing is applied. `kustomize` or `kubectl` renders; without either all is skipped. The
validator has no schema of KEDA's and KServe's: of an InferenceService the pod inside is checked, of a ScaledObject what
we say of it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from support import ROOT
from triptych.cli.app import app

KUBERNETES = ROOT / "deploy" / "kubernetes"
OVERLAYS = ("overlays/cpu", "overlays/gpu", "overlays/kserve", "jobs/locust")
SERVERS = OVERLAYS[:3]
VERSIONS = ("1.35", "1.36", "1.37")
WITHOUT_SCHEMA = {"ScaledObject", "InferenceService"}
UID = 10001

Manifest = dict[str, Any]

RENDERER = next(
    (command for command in (["kustomize", "build"], ["kubectl", "kustomize"]) if shutil.which(command[0])), None
)
pytestmark = pytest.mark.skipif(RENDERER is None, reason="needs kustomize or kubectl")


def rendered(directory: Path) -> list[Manifest]:
    assert RENDERER
    done = subprocess.run([*RENDERER, str(directory)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


@cache
def manifests(overlay: str) -> list[Manifest]:
    return rendered(KUBERNETES / overlay)


def of_kind(kind: str, overlay: str) -> list[Manifest]:
    return [manifest for manifest in manifests(overlay) if manifest["kind"] == kind]


def pods(overlay: str) -> Iterator[tuple[str, Manifest, Manifest]]:
    """Yield kind and name, labels and spec of every pod."""
    for manifest in manifests(overlay):
        name, spec = f"{manifest['kind']} {manifest['metadata']['name']}", manifest.get("spec", {})
        if manifest["kind"] == "InferenceService":
            predictor = dict(spec["predictor"])
            predictor.pop("minReplicas")
            yield name, predictor.pop("labels"), predictor
        elif "template" in spec:
            yield name, spec["template"]["metadata"]["labels"], spec["template"]["spec"]


def containers(spec: Manifest) -> list[Manifest]:
    return [*spec.get("initContainers", ()), *spec["containers"]]


def server(overlay: str) -> Manifest:
    return next(spec for _, labels, spec in pods(overlay) if labels["app.kubernetes.io/component"] == "triton")


def environment(container: Manifest) -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in container.get("env", ())}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_manifest_is_valid(overlay: str, version: str) -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="needs kubernetes-validate, of the extra `dev`")
    for manifest in manifests(overlay):
        if manifest["kind"] not in WITHOUT_SCHEMA:
            validator.validate(manifest, version, strict=True)
    for name, labels, spec in pods(overlay):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod", "labels": labels}, "spec": spec}
        assert validator.validate(pod, version, strict=True) == version, name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_may_do_no_more_than_it_must(overlay: str) -> None:
    for name, _, spec in pods(overlay):
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["enableServiceLinks"] is False, name
        assert spec["terminationGracePeriodSeconds"], name
        context = spec["securityContext"]
        assert (context["runAsNonRoot"], context["runAsUser"], context["runAsGroup"]) == (True, UID, UID), name
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in containers(spec):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert container["resources"]["limits"]["memory"], name
            assert all("value" in variable for variable in container.get("env", ())), f"{name}: a secret in a variable"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_volume_is_there_and_is_written_by_who_should(overlay: str) -> None:
    claims = {claim["metadata"]["name"] for claim in of_kind("PersistentVolumeClaim", "overlays/cpu")}
    for name, labels, spec in pods(overlay):
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        used = [mount for container in containers(spec) for mount in container["volumeMounts"]]
        assert {mount["name"] for mount in used} == set(volumes), name
        for mount in used:
            volume = volumes[mount["name"]]
            builds = labels["app.kubernetes.io/component"] == "build" and mount["name"] in ("detector", "cache")
            assert "emptyDir" in volume or mount.get("readOnly", False) is not builds, f"{name}: {mount}"
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in claims
            if mount["mountPath"] == "/dev/shm":
                assert volume["emptyDir"]["medium"] == "Memory"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_versions_are_those_of_docker_compose(overlay: str) -> None:
    if not (ROOT / ".env").exists():
        pytest.skip("there is no .env of docker-compose.yml")
    known = dict(re.findall(r"^(\w+)=(.+)$", (ROOT / ".env").read_text(), re.MULTILINE))
    ours = {f"triptych-{kind}:{known['TRIPTYCH_VERSION']}" for kind in ("cpu", "gpu")}
    images = {container["image"] for _, _, spec in pods(overlay) for container in containers(spec)}
    assert images <= {*ours, known["ENVOY_IMAGE"]}


@pytest.mark.parametrize("overlay", SERVERS)
def test_a_server_is_watched_and_ends_in_time(overlay: str) -> None:
    spec = server(overlay)
    (container,) = spec["containers"]
    probes = [container[probe]["exec"]["command"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")]
    assert probes[0] == probes[1] == probes[2]
    assert probes[0][:2] == ["triptych", "ready"]
    before_the_end = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    exit_timeout_s = int(environment(container)["EXIT_TIMEOUT_S"])
    assert before_the_end + exit_timeout_s < spec["terminationGracePeriodSeconds"]
    if overlay == "overlays/cpu":
        assert f"--exit-timeout-s={exit_timeout_s}" in container["args"]


@pytest.mark.parametrize("overlay", SERVERS)
def test_a_server_is_probed_as_in_docker_compose(overlay: str) -> None:
    if not (ROOT / "docker-compose.yml").exists():
        pytest.skip("there is no docker-compose.yml")
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    (container,) = server(overlay)["containers"]
    known = compose["x-server"]
    assert ["CMD", *container["readinessProbe"]["exec"]["command"]] == known["healthcheck"]["test"]
    assert {name: str(value) for name, value in known["environment"].items()}.items() <= environment(container).items()


@pytest.mark.parametrize("overlay", SERVERS)
def test_the_doctor_comes_first_and_sees_what_the_server_sees(overlay: str) -> None:
    spec = server(overlay)
    (doctor,), (container,) = spec["initContainers"], spec["containers"]
    assert doctor["command"] == ["triptych", "doctor", "--verified"]
    assert doctor["image"] == container["image"]
    assert doctor["resources"] == container["resources"]
    assert all(mount in container["volumeMounts"] for mount in doctor["volumeMounts"])


def test_each_kind_of_gpu_has_a_build_which_the_gate_measures_on_it() -> None:
    jobs = of_kind("Job", "overlays/gpu")
    products = [job["spec"]["template"]["spec"]["nodeSelector"]["nvidia.com/gpu.product"] for job in jobs]
    assert sorted(products) == ["NVIDIA-H100-80GB-HBM3", "NVIDIA-L4"]
    for job in jobs:
        (container,) = job["spec"]["template"]["spec"]["containers"]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
        assert "--data" in container["command"]
        assert container["args"][:2] == ["--target", "tensorrt"]
        assert container["image"] == server("overlays/gpu")["containers"][0]["image"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_option_of_ours_is_there(overlay: str) -> None:
    commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for _, _, spec in pods(overlay):
        for container in containers(spec):
            probes = [container[probe]["exec"]["command"] for probe in container if probe == "readinessProbe"]
            for words in ([*container.get("command", ()), *container.get("args", ())], *probes):
                if words[:1] != ["triptych"]:
                    continue
                known = {option for parameter in commands[words[1]].params for option in parameter.opts}
                used = {word.partition("=")[0] for word in words if word.startswith("--")}
                assert used <= known, f"triptych {words[1]}"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_services_budgets_and_policies_select_pods_and_ports_that_there_are(overlay: str) -> None:
    labels = [of_pod for _, of_pod, _ in pods(overlay)]
    ports = {port["name"] for _, _, spec in pods(overlay) for one in containers(spec) for port in one.get("ports", ())}

    def selects(selector: Manifest) -> bool:
        return any(selector.items() <= of_pod.items() for of_pod in labels)

    for service in of_kind("Service", overlay):
        assert selects(service["spec"]["selector"]), service["metadata"]["name"]
        assert {port["targetPort"] for port in service["spec"]["ports"] if "targetPort" in port} <= ports
    for budget in of_kind("PodDisruptionBudget", overlay):
        assert selects(budget["spec"]["selector"]["matchLabels"])
    for policy in of_kind("NetworkPolicy", overlay):
        assert selects(policy["spec"]["podSelector"].get("matchLabels", {}))


@pytest.mark.parametrize("overlay", SERVERS)
def test_nobody_reaches_anybody_unless_a_policy_says_so(overlay: str) -> None:
    assert {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]} in [
        policy["spec"] for policy in of_kind("NetworkPolicy", overlay)
    ]


def test_envoy_finds_every_server_by_a_name_without_an_address_of_its_own() -> None:
    (service,) = [one for one in of_kind("Service", "overlays/cpu") if one["metadata"]["name"] == "triton"]
    assert service["spec"]["clusterIP"] == "None"
    (config,) = [one for one in of_kind("ConfigMap", "overlays/cpu") if one["metadata"]["name"].startswith("envoy")]
    assert config["data"]["envoy.yaml"] == (ROOT / "docker" / "envoy" / "envoy.yaml").read_text()
    assert "socket_address: {address: triton, port_value: 8001}" in config["data"]["envoy.yaml"]


@pytest.mark.parametrize("overlay", SERVERS)
def test_whoever_scales_the_servers_alone_says_how_many(overlay: str) -> None:
    servers = [one for one in of_kind("Deployment", overlay) if one["metadata"]["name"] == "triton"]
    assert all("replicas" not in one["spec"] for one in servers)
    scalers = of_kind("HorizontalPodAutoscaler", overlay) + of_kind("ScaledObject", overlay)
    assert len(scalers) == len(servers)
    assert all(scaler["spec"]["scaleTargetRef"]["name"] == "triton" for scaler in scalers)


def test_what_plan_writes_is_when_keda_scales(tmp_path: Path) -> None:
    shutil.copytree(KUBERNETES, tmp_path / "deploy" / "kubernetes")
    shutil.copytree(ROOT / "docker" / "envoy", tmp_path / "docker" / "envoy")
    keda = tmp_path / "deploy" / "kubernetes" / "components" / "keda"
    (keda / "scaling.env").write_text("# as `triptych plan --scaling` writes it\nservers=7\ninflight=5.25\n")
    (scaled,) = [
        one
        for one in rendered(tmp_path / "deploy" / "kubernetes" / "overlays" / "gpu")
        if one["kind"] == "ScaledObject"
    ]
    assert scaled["spec"]["minReplicaCount"] == 7
    assert scaled["spec"]["triggers"][0]["metadata"]["threshold"] == "5.25"
