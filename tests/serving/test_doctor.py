"""What `triptych doctor` finds: each finding from facts, and the command on published repositories.

There is no GPU here: plans, GPUs and servers of other releases are facts that are handed in.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2
from typer.testing import CliRunner

from support import ROOT
from triptych.cli.app import app
from triptych.cli import doctor as command
from triptych.errors import BuildError, ContractError, ServerStartError, ServerUnavailable
from triptych.machine import Gpu, parse_gpus
from triptych.model_config import read_config
from triptych.serving import preflight
from triptych.serving.doctor import MODEL_FILES, Finding, Place, Published, examine, minor, worst
from triptych.serving.server import Ports, TritonServer
from triptych_build.publish.publish import TARGETS

H200 = Gpu("NVIDIA H200", "9.0", "580.65.06")
L4 = Gpu("NVIDIA L4", "8.9", "580.65.06")

SERVER = Place("the server at gpu:8001", triton="2.69.0", gpus=(H200,), serving=frozenset({1}))
PIP = Place("this machine", is_pip=True, packages={"openvino": "2026.4.1", "tensorrt": "10.16.1.11"}, gpus=(H200,))

ENGINE = {
    "builder": "tensorrt",
    "version": "10.16.1.11",
    "compute_capabilities": ["9.0"],
    "gpu": "NVIDIA H200",
    "driver": "580.65.06",
    "cuda": "13.0",
    "hardware_compatibility": "none",
    "version_compatible": False,
    "profiles": [{"min": 1, "opt": 8, "max": 16}],
    "inputs": [{"name": "pixels", "dtype": "uint8", "shape": [-1, 640, 640, 3]}],
    "outputs": [{"name": "candidates", "dtype": "float32", "shape": [-1, 300, 6]}],
    "plan_bytes": 123,
}

CONFIG = """
    max_batch_size: 16
    version_policy { specific { versions: 1 } }
    input { name: "pixels" data_type: TYPE_UINT8 dims: [640, 640, 3] }
    output { name: "candidates" data_type: TYPE_FP32 dims: [300, 6] }
"""


def config(text: str = CONFIG) -> model_config_pb2.ModelConfig:
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def plan(target: str = "tensorrt", **engine: object) -> Published:
    """A verified version whose plan is what was published, with an engine that differs in `engine`."""
    manifest = {"target": target, "model_sha256": "aa", "engine": ENGINE | engine, "verification": {"passed": True}}
    return Published(1, True, manifest, {"model.plan": "aa"}, {"model.plan": 123}, config())


def onnx_model(target: str = "openvino", **manifest: object) -> Published:
    """A verified version that is an ONNX."""
    adapted = {"candidates": 300, "spec": {"width": 640, "height": 640}}
    whole = {"target": target, "model_sha256": "aa", "adapted": adapted, "verification": {"passed": True}}
    return Published(1, True, whole | manifest, {"model.onnx": "aa"}, {"model.onnx": 9}, config())


def texts(place: Place, *versions: Published, severity: str) -> list[str]:
    return [finding.text for finding in examine(place, versions) if finding.severity == severity]


def refusals(place: Place, *versions: Published) -> list[str]:
    return texts(place, *versions, severity="will not load")


def warnings(place: Place, *versions: Published) -> list[str]:
    return texts(place, *versions, severity="warning")


# --- What fits


@pytest.mark.parametrize(
    ("place", "published"),
    [
        (SERVER, plan()),
        (PIP, plan("tensorrt-python")),
        (PIP, onnx_model()),
        (SERVER, onnx_model("onnxruntime")),
        (replace(SERVER, gpus=(L4,)), plan(hardware_compatibility="ampere_plus")),
        (SERVER, plan(hardware_compatibility="same_compute_capability", gpu="NVIDIA H100")),
        (
            replace(PIP, packages={"tensorrt-rtx": "1.7.1.116"}),
            plan("tensorrt-python", builder="tensorrt-rtx", version="1.7.1.116", gpu=None),
        ),
    ],
)
def test_what_fits_is_ok_without_a_warning(place, published):
    findings = examine(place, [published])
    assert worst(findings) == "ok", findings
    assert findings[-1] == Finding("ok", "version 1 (served)", f"nothing found that keeps {place.name} from loading it")


def test_the_release_of_the_server_is_said():
    assert "Triton 2.69.0 is container 26.05, with TensorRT 10.16" in texts(SERVER, plan(), severity="ok")


# --- Versions of TensorRT


@pytest.mark.parametrize(
    ("triton", "engine", "severity", "message"),
    [
        (
            "2.70.0",
            {},
            "will not load",
            "by TensorRT 10.16.1.11, and the server at gpu:8001 has 11.0, which reads plans of its own",
        ),
        ("2.69.0", {"version": "10.3.0"}, "will not load", "has 10.16, which reads plans of its own version alone"),
        ("2.72.0", {"version": "11.2.0"}, "will not load", "has 11.2.1"),
        (
            "2.69.0",
            {"version": "10.3.0", "version_compatible": True},
            "ok",
            "--backend-config=tensorrt,version-compatible=true",
        ),
        ("2.70.0", {"version_compatible": True}, "warning", "promised within 10.x alone; try it, or build it again"),
        ("2.69.0", {"version": "11.0.0", "version_compatible": True}, "will not load", "which is older"),
        ("2.73.0", {}, "warning", "which one the server at gpu:8001 has is not known"),
        ("2.99.0", {}, "warning", "which TensorRT comes with Triton 2.99.0 is not known to this release"),
        (
            "2.69.0",
            {"builder": "tensorrt-rtx", "version": "1.7.1"},
            "will not load",
            "whose plans Triton's TensorRT backend does not read",
        ),
    ],
)
def test_a_plan_of_another_tensorrt(triton, engine, severity, message):
    found = texts(replace(SERVER, triton=triton), plan(**engine), severity=severity)
    assert any(message in text for text in found), found


@pytest.mark.parametrize(
    ("packages", "engine", "message"),
    [
        ({}, {}, "it needs the Python package of tensorrt, which this machine does not have; `pip install tensorrt`"),
        ({"tensorrt": "11.0.0"}, {}, "built by TensorRT 10.16.1.11, and this machine has 11.0.0"),
        (
            {"tensorrt": "10.16.1.11"},
            {"builder": "tensorrt-rtx"},
            "`pip install tensorrt-rtx-cu12-libs tensorrt-rtx-cu12-bindings`",
        ),
        ({"tensorrt-rtx": "1.6.0"}, {"builder": "tensorrt-rtx", "version": "1.7.1"}, "TensorRT for RTX 1.7.1, and"),
    ],
)
def test_the_python_package_that_loads_a_plan(packages, engine, message):
    found = refusals(replace(PIP, packages=packages), plan("tensorrt-python", **engine))
    assert any(message in text for text in found), found


def test_a_server_whose_packages_cannot_be_seen_is_doubted_and_not_refused():
    found = examine(SERVER, [plan("tensorrt-python"), onnx_model()])
    assert worst(found) == "warning"
    assert sum("cannot be seen from here" in finding.text for finding in found) == 2


# --- GPUs


@pytest.mark.parametrize(
    ("gpus", "engine", "severity", "message"),
    [
        (
            (L4,),
            {},
            "will not load",
            "for compute capability 9.0, and the server at gpu:8001 has NVIDIA L4 (compute capability 8.9)",
        ),
        ((L4,), {"hardware_compatibility": "same_compute_capability"}, "will not load", "NVIDIA L4"),
        (
            (Gpu("Tesla T4", "7.5"),),
            {"hardware_compatibility": "ampere_plus"},
            "will not load",
            "built for compute capability 8.0 and above",
        ),
        ((H200, L4), {}, "warning", "has NVIDIA L4 (compute capability 8.9)"),
        (
            (Gpu("NVIDIA H100", "9.0"),),
            {},
            "warning",
            "built on NVIDIA H200 and the server at gpu:8001 has NVIDIA H100",
        ),
        (
            (replace(H200, driver="570.10"),),
            {},
            "warning",
            "with driver 580.65.06, and NVIDIA H200 has the older 570.10",
        ),
        ((Gpu("Jetson, R36"),), {}, "warning", "has Jetson, R36 (compute capability not known)"),
        ((), {}, "will not load", "it needs an NVIDIA GPU, and the server at gpu:8001 has none"),
        (None, {}, "warning", "the GPU of the server at gpu:8001 cannot be seen from here"),
    ],
)
def test_a_plan_of_another_gpu(gpus, engine, severity, message):
    found = texts(replace(SERVER, gpus=gpus), plan(**engine), severity=severity)
    assert any(message in text for text in found), found


def test_a_plan_of_tensorrt_for_rtx_on_another_gpu():
    rtx = plan("tensorrt-python", builder="tensorrt-rtx", version="1.7.1", compute_capabilities=["8.9"], gpu=None)
    place = replace(PIP, packages={"tensorrt-rtx": "1.7.1"})
    assert any(
        "built for compute capability 8.9, and this machine has NVIDIA H200" in text for text in refusals(place, rtx)
    )
    assert not refusals(replace(place, gpus=(L4,)), rtx)


def test_a_driver_of_another_minor_version_is_fine():
    assert not warnings(replace(SERVER, gpus=(replace(H200, driver="580.10.01"),)), plan())


def test_an_onnx_needs_no_gpu():
    assert not refusals(replace(PIP, gpus=()), onnx_model())


def test_gpus_as_nvidia_smi_writes_them():
    assert parse_gpus("NVIDIA H200, 9.0, 580.65.06\nNVIDIA L4, 8.9, 580.65.06\n") == (H200, L4)
    assert parse_gpus("") == ()
    assert parse_gpus("NVIDIA-SMI has failed, because, it could not talk to the driver") == ()


# --- Targets and places


@pytest.mark.parametrize(
    ("published", "message"),
    [
        (
            plan(),
            "Triton from pip has the Python backend alone; run it in a Triton container, or publish it with --target "
            "tensorrt-python",
        ),
        (onnx_model("onnxruntime"), "needs Triton's ONNX Runtime backend"),
    ],
)
def test_triton_from_pip_lacks_the_backend(published, message):
    assert any(message in text for text in refusals(PIP, published))


def test_openvino_that_is_missing_or_another():
    assert "`pip install openvino`" in refusals(replace(PIP, packages={}), onnx_model())[0]
    assert (
        "published with OpenVINO 2025.0, and this machine has 2026.4.1"
        in (warnings(PIP, onnx_model(versions={"openvino": "2025.0"}))[0])
    )


def test_it_knows_every_target_that_can_be_published():
    assert {target: each.filename for target, each in TARGETS.items()} == MODEL_FILES


def test_onnx_runtime_that_is_missing():
    found = examine(PIP, [onnx_model("onnxruntime-python")])
    assert worst(found) == "will not load"
    assert any("it needs the Python package of onnxruntime" in finding.text for finding in found)
    there = replace(PIP, packages={"onnxruntime": "1.31.1"})
    assert worst(examine(there, [onnx_model("onnxruntime-python")])) == "ok"


def test_a_plan_of_tensorrt_for_rtx_needs_its_own_package():
    published = plan("tensorrt-rtx", builder="tensorrt-rtx", version="1.7.1.116")
    assert any("it needs the Python package of tensorrt-rtx" in finding.text for finding in examine(PIP, [published]))
    there = replace(PIP, packages={"tensorrt-rtx": "1.7.1.116"})
    assert worst(examine(there, [published])) == "ok"


def test_what_troubles_the_place_troubles_every_version():
    place = replace(PIP, troubles=("there is no python3",), doubts=("python3 may be another",))
    assert Finding("will not load", "this machine", "there is no python3") in examine(place, [onnx_model()])
    assert warnings(place, onnx_model()) == ["python3 may be another"]


def test_a_server_that_serves_another_version():
    place = replace(PIP, serving=frozenset({3}))
    assert "serves version 3 of the detector and the repository says 1" in warnings(place, onnx_model())[0]
    assert "serves version none of" in warnings(replace(PIP, serving=frozenset()), onnx_model())[0]
    assert not warnings(replace(PIP, serving=frozenset({1})), onnx_model())


def test_a_repository_that_serves_nothing():
    assert "serves no version" in refusals(PIP, replace(onnx_model(), is_served=False))[0]


# --- Files, configurations, verification


@pytest.mark.parametrize(
    ("published", "message"),
    [
        (replace(plan(), sha256={}), "its model.plan is missing"),
        (
            replace(plan(), sha256={"model.plan": "bb"}, sizes={"model.plan": 99}),
            "its model.plan is not the file that was published (99 bytes of 123)",
        ),
        (
            replace(onnx_model(), sha256={"model.onnx": "bb"}),
            "its model.onnx is not the file that was published; publish",
        ),
        (replace(onnx_model(), sha256={"model.plan": "aa"}), "its model.onnx is missing"),
        (
            replace(plan(), config=None, config_error="config.pbtxt is not a model configuration"),
            "is not a model configuration; publish it again",
        ),
        (replace(plan(), config=config(CONFIG.replace("versions: 1", "versions: 2"))), "serves another version than 1"),
        (
            replace(plan(), config=config(CONFIG.replace("640, 640", "320, 640"))),
            "says pixels [320, 640, 3], but the model has [640, 640, 3]",
        ),
        (
            replace(plan(), config=config(CONFIG.replace("300, 6", "300, 7"))),
            "says candidates [300, 7], but the model has [300, 6]",
        ),
        (
            replace(onnx_model(), config=config(CONFIG.replace("300, 6", "100, 6"))),
            "says candidates [100, 6], but the model has [300, 6]",
        ),
        (plan(profiles=[{"min": 1, "opt": 4, "max": 8}]), "forms batches of up to 16, but its engine takes 8 at most"),
        (
            plan(profiles=[], inputs=[{"name": "pixels", "dtype": "uint8", "shape": [1, 640, 640, 3]}]),
            "but its engine takes 1 at most",
        ),
        (
            replace(plan(), config=config(CONFIG.replace("16", "8"))),
            "forms batches of up to 8, and the ensemble brings 16",
        ),
    ],
)
def test_a_version_that_is_not_what_was_published(published, message):
    place = SERVER if published.manifest["target"] == "tensorrt" else PIP
    found = examine(place, [published])
    assert any(message in finding.text for finding in found if finding.severity == "will not load"), found
    assert not any("nothing found" in finding.text for finding in found)


def test_the_largest_of_several_profiles_counts():
    assert not refusals(SERVER, plan(profiles=[{"min": 1, "opt": 1, "max": 1}, {"min": 1, "opt": 8, "max": 16}]))


def test_open_sizes_fit_any():
    shape = [-1, -1, -1, 3]
    assert not refusals(SERVER, plan(inputs=[{"name": "pixels", "dtype": "uint8", "shape": shape}]))


@pytest.mark.parametrize(
    ("published", "message"),
    [
        (replace(onnx_model(), manifest={}), "it has no manifest that can be read"),
        (onnx_model("abacus"), "its target 'abacus' is not known"),
        (onnx_model(verification=None), "it was never verified"),
        (onnx_model(verification={"passed": False}), "it failed its verification and was published by force"),
        (plan(profiles=[{"min": 4, "opt": 8, "max": 16}]), "takes batches of 4 and more, so that a single image fails"),
    ],
)
def test_what_may_be_wrong_is_a_warning(published, message):
    place = SERVER if published.manifest.get("target") == "tensorrt" else PIP
    assert any(message in text for text in warnings(place, published))
    assert not refusals(place, published)


def test_every_version_is_looked_at_on_its_own():
    old = replace(plan(version="8.5.3.1"), number=1, is_served=False)
    new = replace(plan(), number=2, config=config(CONFIG.replace("versions: 1", "versions: 2")))
    found = {finding.subject: finding.severity for finding in examine(replace(SERVER, serving=None), [old, new])}
    assert found == {"the server at gpu:8001": "ok", "version 1": "will not load", "version 2 (served)": "ok"}


def test_severities_are_ordered():
    findings = [Finding(severity, "", "") for severity in ("ok", "will not load", "warning")]
    assert worst(findings) == "will not load"
    assert worst(findings[:1]) == worst([]) == "ok"
    assert minor("2.70.0") == "2.70"


# --- Gathering the facts


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Put a program on PATH that stands for one which this machine does not have."""

    def make(name: str, body: str) -> None:
        path = tmp_path / "programs" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{path.parent}:/usr/bin:/bin")

    return make


def test_gpus_come_from_nvidia_smi(program, monkeypatch, tmp_path):
    monkeypatch.setattr(command, "JETSON_RELEASE", tmp_path / "none")
    program("nvidia-smi", 'test "$1" = --query-gpu=name,compute_cap,driver_version && echo "NVIDIA L4, 8.9, 580.65.06"')
    assert command.visible_gpus() == (L4,)
    program("nvidia-smi", "echo NVIDIA-SMI has failed, because, no driver; exit 9")
    assert command.visible_gpus() == ()
    program("nvidia-smi", "exec sleep 30")
    monkeypatch.setattr(command, "SMI_TIMEOUT_S", 0.2)
    assert command.visible_gpus() == ()


def test_a_jetson_says_what_it_is_in_a_file(program, monkeypatch, tmp_path):
    program("other", "")
    release = tmp_path / "nv_tegra_release"
    release.write_text("# R36 (release), REVISION: 4.3, GCID: 1, BOARD: generic\n# more\n")
    monkeypatch.setattr(command, "JETSON_RELEASE", release)
    assert command.visible_gpus() == (Gpu("Jetson, R36 (release), REVISION: 4.3, GCID: 1, BOARD: generic"),)


def test_a_container_of_triton_is_recognised():
    inside = command.look_around({"TRITON_SERVER_VERSION": "2.70.0", "NVIDIA_TRITON_SERVER_VERSION": "26.06"})
    assert (inside.name, inside.triton, inside.tensorrt) == ("this Triton container 26.06", "2.70.0", "11.0")
    assert not inside.is_pip
    assert command.look_around({"NVIDIA_TRITON_SERVER_VERSION": "26.05"}).tensorrt == "10.16"
    assert command.look_around({}).is_pip


def test_the_runtimes_that_are_installed():
    found = command.installed_packages()
    assert found["openvino"] == version("openvino")
    try:
        version("tensorrt")
    except PackageNotFoundError:
        assert "tensorrt" not in found


def test_another_python3_on_path_is_a_doubt(tmp_path):
    other = tmp_path / "python3"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    (doubt,) = command.look_around({"PATH": str(tmp_path)}).doubts
    assert f"the first python3 on PATH is {other}" in doubt
    assert command.look_around({"PATH": str(Path(sys.executable).parent)}).doubts == ()


def test_numpy_that_pytriton_does_not_take(monkeypatch):
    monkeypatch.setattr(command, "version", {"numpy": "2.1.0", "nvidia-pytriton": "0.7.0"}.__getitem__)
    assert any("numpy 2.1.0 is installed" in trouble for trouble in command._pip_troubles())


def test_a_python_that_pytriton_has_no_stub_for(monkeypatch):
    def refuse() -> None:
        raise ServerStartError("Triton from pip runs models on Python 3.10, 3.11, but this is 3.13")

    monkeypatch.setattr(preflight, "find_installation", refuse)
    assert "but this is 3.13" in command.look_around({}).troubles[0]


# --- The command


def publish(adapted: str, repository: Path) -> None:
    """Publish in a process of its own, as a user does."""
    arguments = [sys.executable, ROOT / "build", ROOT / adapted, "--repository", repository, "--instances", "1"]
    arguments += ["--cache", repository.parent / "cache"]
    subprocess.run(list(map(str, arguments)), check=True, capture_output=True)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the demo detector."""
    repository = tmp_path_factory.mktemp("doctor") / "model_repository"
    shutil.copytree(ROOT / "model_repository", repository, ignore=shutil.ignore_patterns("detector", "__pycache__"))
    publish("demo/pcb.onnx", repository)
    return repository


@pytest.fixture
def repository(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it to damage, on a machine whose python3 is the environment's."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    return shutil.copytree(published, tmp_path / "model_repository")


def run(*arguments: object) -> tuple[int, dict[str, object]]:
    done = CliRunner().invoke(app, ["doctor", "--json", *map(str, arguments)])
    return done.exit_code, json.loads(done.stdout)


def test_a_sound_repository_passes(repository):
    code, report = run("--model-repository", repository)
    assert (code, report["worst"]) == (0, "warning")
    texts = [finding["text"] for finding in report["findings"]]
    assert any("it was never verified" in text for text in texts)
    assert texts[-1].startswith("nothing found that keeps Triton from pip on this machine")


def test_a_finding_is_a_line_for_people(repository):
    done = CliRunner().invoke(app, ["doctor", "--model-repository", str(repository)])
    assert done.exit_code == 0
    assert "warning       version 1 (served): it was never verified" in done.stdout
    assert len(done.stdout.splitlines()) == 2


def cut_model(repository: Path) -> None:
    path = repository / "detector" / "1" / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1000])


def break_config(repository: Path) -> None:
    for directory in (repository / "detector", repository / "detector" / "1"):
        (directory / "config.pbtxt").write_text("max_batch_size: many\n")


def shrink_batch(repository: Path) -> None:
    for directory in (repository / "detector", repository / "detector" / "1"):
        path = directory / "config.pbtxt"
        path.write_text(path.read_text().replace("max_batch_size: 16", "max_batch_size: 8"))


def pretend_plan(repository: Path) -> None:
    directory = repository / "detector" / "1"
    (directory / "model.plan").write_bytes(b"ftrt, made up")
    digest = hashlib.sha256(b"ftrt, made up").hexdigest()
    manifest = json.loads((directory / "manifest.json").read_text())
    manifest |= {"target": "tensorrt", "model_sha256": digest, "engine": ENGINE, "verification": {"passed": True}}
    (directory / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_model, "its model.onnx is not the file that was published"),
        (lambda repository: (repository / "detector" / "1" / "model.onnx").unlink(), "its model.onnx is missing"),
        (break_config, "is not a model configuration"),
        (shrink_batch, "forms batches of up to 8, and the ensemble brings 16"),
        (pretend_plan, "it needs Triton's TensorRT backend, and Triton from pip has the Python backend alone"),
        (lambda repository: (repository / "preprocess" / "config.pbtxt").unlink(), "there is no "),
    ],
)
def test_a_damaged_repository_fails_in_words(repository, damage, message):
    damage(repository)
    code, report = run("--model-repository", repository)
    assert (code, report["worst"]) == (1, "will not load")
    assert any(message in finding["text"] for finding in report["findings"]), report
    assert all("\n" not in finding["text"] for finding in report["findings"])


@pytest.mark.parametrize("content", [None, "{", "[1, 2]"])
def test_a_version_without_a_manifest_is_a_warning(repository, content):
    path = repository / "detector" / "1" / "manifest.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    code, report = run("--model-repository", repository)
    assert code == 0
    assert any("it has no manifest that can be read" in finding["text"] for finding in report["findings"])


def test_no_repository_and_no_server_are_one_sentence(tmp_path, repository, nobody):
    with pytest.raises(BuildError, match="has no published detector"):
        command.read_versions(tmp_path)
    with pytest.raises(ServerUnavailable, match="no server answers at"):
        command.ask_server(nobody)
    with pytest.raises(ContractError, match="must be host:port"):
        command.ask_server("http://127.0.0.1:8000")


@pytest.mark.triton
def test_a_running_server_is_asked(repository, tmp_path):
    with TritonServer(repository, ports=Ports.free(), log_path=tmp_path / "log") as server:
        place = command.ask_server(server.grpc_address)
        assert (place.is_pip, place.triton, place.serving) == (True, "2.51.0", frozenset({1}))
        code, report = run("--model-repository", repository, "--address", server.grpc_address)
        assert code == 0, report
        pretend_plan(repository)
        code, report = run("--model-repository", repository, "--address", server.grpc_address)
    assert code == 1
    assert any("needs Triton's TensorRT backend" in finding["text"] for finding in report["findings"])


@pytest.mark.triton
def test_what_doctor_says_of_batches_is_what_triton_does(repository, tmp_path):
    shrink_batch(repository)
    assert read_config(repository / "detector").max_batch_size == 8
    with (
        pytest.raises(ServerStartError, match="batch"),
        TritonServer(repository, ports=Ports.free(), log_path=tmp_path / "log"),
    ):
        pass
