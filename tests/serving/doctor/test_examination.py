"""All checks together: the deployment, the version it serves, and every version on its own."""

from __future__ import annotations

from dataclasses import replace

import pytest

from support.doctor_facts import (
    CONFIG,
    H200,
    L4,
    PIP,
    SERVER,
    config,
    find,
    onnx_model,
    plan,
    refusals,
    warnings,
)
from triptych.serving.doctor import Deployment, Finding, PublishedVersion, examine, worst
from triptych.serving.doctor.facts import minor


@pytest.mark.parametrize(
    ("deployment", "published"),
    [
        (SERVER, plan()),
        (PIP, plan("tensorrt-python")),
        (PIP, onnx_model()),
        (SERVER, onnx_model("onnxruntime")),
        (SERVER, plan(hardware_compatibility="same_compute_capability", gpu="NVIDIA H100")),
        (
            replace(PIP, packages={"tensorrt-rtx": "1.7.1.116"}),
            plan("tensorrt-python", builder="tensorrt-rtx", version="1.7.1.116", gpu=None),
        ),
    ],
)
def test_what_fits_is_ok_without_a_warning(deployment: Deployment, published: PublishedVersion) -> None:
    findings = examine(deployment, [published])
    assert worst(findings) == "ok", findings
    assert findings[-1] == Finding(
        "ok", "loads", "version 1 (served)", f"nothing found that keeps {deployment.name} from loading it"
    )


def test_a_plan_for_every_gpu_loads_on_another_and_was_verified_on_one() -> None:
    findings = examine(replace(SERVER, gpus=(L4,)), [plan(hardware_compatibility="ampere_plus")])
    assert worst(findings) == "warning"
    assert find(findings, "verified-elsewhere").text.startswith("it was verified on NVIDIA H200, and the server at")


def test_the_release_of_the_server_is_said() -> None:
    findings = examine(SERVER, [plan()])
    assert find(findings, "triton-release").text == (
        "Triton 2.71.0 is container 26.07, with TensorRT 11.1.0.106 in its standard image (others, such as those for "
        "TensorRT-LLM, have another); plans for it are built after `pip install tensorrt==11.1.0.106`"
    )
    flavoured = replace(SERVER, trt_version="10.14.1.48")
    assert "with TensorRT 10.14.1.48; plans for it are built after `pip install tensorrt==10.14.1.48`" in str(
        find(examine(flavoured, [plan()]), "triton-release")
    )
    assert "pip install 'tensorrt==11.2.1.*'" in str(
        find(examine(replace(SERVER, triton="2.72.0"), [plan()]), "triton-release")
    )


@pytest.mark.parametrize(
    ("triton", "named"),
    [
        ("2.51.0", ["August 2025", "September 2025", "May 2026"]),
        ("2.62.0", ["May 2026"]),
        ("2.70.0", ["May 2026"]),
        ("2.71.0", []),
        ("2.73.0", []),
        ("2.99.0", []),
    ],
)
def test_bulletins_that_a_release_leaves_open(triton: str, named: list[str]) -> None:
    text = " ".join(warnings(replace(SERVER, triton=triton), plan()))
    assert [month for month in ("August 2025", "September 2025", "May 2026") if month in text] == named


def test_errors_and_warnings_of_the_deployment() -> None:
    deployment = replace(PIP, errors=("there is no python3",), warnings=("python3 may be another",))
    assert Finding("will not load", "deployment-error", "this machine", "there is no python3") in examine(
        deployment, [onnx_model()]
    )
    assert warnings(deployment, onnx_model()) == ["python3 may be another"]


def test_a_server_that_serves_another_version() -> None:
    other = find(examine(replace(PIP, serving=frozenset({3})), [onnx_model()]), "other-version-served")
    assert other.severity == "warning"
    assert other.text == "it serves version 3 of the detector and the repository says 1"
    assert other.advice == "switch with `triptych activate 1 --address HOST:PORT`"
    assert "serves version none of" in warnings(replace(PIP, serving=frozenset()), onnx_model())[0]
    assert not warnings(replace(PIP, serving=frozenset({1})), onnx_model())


def test_a_repository_that_serves_nothing() -> None:
    assert "serves no version" in refusals(PIP, replace(onnx_model(), is_served=False))[0]


@pytest.mark.parametrize(
    ("verification", "message"),
    [
        (None, "it was never verified; publish it with labelled images"),
        ({"passed": False}, "it failed its verification and was published by force"),
    ],
)
def test_a_version_that_was_not_verified(verification: object, message: str) -> None:
    published = onnx_model(verification=verification)
    assert any(message in text for text in warnings(PIP, published))
    assert not refusals(PIP, published)


def test_every_version_is_checked_on_its_own() -> None:
    old = replace(plan(version="8.5.3.1"), number=1, is_served=False)
    new = replace(plan(), number=2, config=config(CONFIG.replace("versions: 1", "versions: 2")))
    findings = examine(replace(SERVER, serving=None), [old, new])
    assert {finding.subject: finding.severity for finding in findings} == {
        "the server at gpu:8001": "ok",
        "version 1": "will not load",
        "version 2 (served)": "ok",
    }


def test_severities_are_ordered() -> None:
    findings = [Finding(severity, "", "", "") for severity in ("ok", "will not load", "warning")]
    assert worst(findings) == "will not load"
    assert worst(findings[:1]) == worst([]) == "ok"


def test_the_minor_version() -> None:
    assert minor("2.70.0") == "2.70"
    assert replace(SERVER, gpus=(H200,)).tensorrt == "11.1.0.106"
