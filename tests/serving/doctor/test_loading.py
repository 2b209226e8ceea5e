"""Plans of another TensorRT or GPU, and packages and backends that are missing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from support.doctor_facts import H200, L4, PIP, SERVER, onnx_model, plan, refusals, texts, warnings
from triptych.machine import Gpu
from triptych.serving.doctor import PublishedVersion, examine, worst
from triptych.serving.doctor.facts import MODEL_FILES
from triptych_build.publish.target import TARGETS

# --- Versions of TensorRT


@pytest.mark.parametrize(
    ("triton", "engine", "severity", "message"),
    [
        (
            "2.69.0",
            {"version": "10.16.0.72"},
            "will not load",
            "by TensorRT 10.16.0.72, and the server at gpu:8001 has 10.16.1.11, which reads only plans of its own "
            "version; build it again there with `triptych build MODEL.onnx`, after `pip install tensorrt==10.16.1.11`",
        ),
        ("2.71.0", {"version": "11.1.0.107"}, "will not load", "has 11.1.0.106"),
        ("2.72.0", {"version": "11.2.0.1"}, "will not load", "has 11.2.1"),
        (
            "2.72.0",
            {"version": "11.2.1.9"},
            "warning",
            "has 11.2.1: which build of it is not known, and a plan loads only",
        ),
        (
            "2.69.0",
            {"version": "10.3.0", "version_compatible": True},
            "ok",
            "--backend-config=tensorrt,version-compatible=true",
        ),
        (
            "2.70.0",
            {"version": "10.16.1.11", "version_compatible": True},
            "warning",
            "promised only within 10.x; try it",
        ),
        ("2.69.0", {"version": "11.0.0", "version_compatible": True}, "will not load", "which is older"),
        ("2.65.0", {}, "warning", "which one the server at gpu:8001 has is not known"),
        ("2.99.0", {}, "warning", "Triton 2.99.0 is container (not known), and which TensorRT it has is not known"),
        (
            "2.69.0",
            {"builder": "tensorrt-rtx", "version": "1.7.1"},
            "will not load",
            "whose plans Triton's TensorRT backend does not read",
        ),
    ],
)
def test_a_plan_of_another_tensorrt(triton: str, engine: dict[str, Any], severity: str, message: str) -> None:
    findings = texts(replace(SERVER, triton=triton), plan(**engine), severity=severity)
    assert any(message in text for text in findings), findings


@pytest.mark.parametrize(
    ("packages", "engine", "message"),
    [
        ({}, {}, "it needs the Python package of tensorrt, which this machine does not have; `pip install "),
        ({"tensorrt": "11.0.0"}, {}, "built by TensorRT 11.1.0.106, and this machine has 11.0.0"),
        (
            {"tensorrt": "11.1.0.106"},
            {"builder": "tensorrt-rtx"},
            "which this machine does not have; `pip install 'tensorrt-rtx-cu12-",
        ),
        ({"tensorrt-rtx": "1.6.0"}, {"builder": "tensorrt-rtx", "version": "1.7.1"}, "TensorRT for RTX 1.7.1, and"),
    ],
)
def test_the_python_package_that_loads_a_plan(packages: dict[str, str], engine: dict[str, Any], message: str) -> None:
    findings = refusals(replace(PIP, packages=packages), plan("tensorrt-python", **engine))
    assert any(message in text for text in findings), findings


def test_a_version_compatible_plan_carries_code() -> None:
    published = plan("tensorrt-python", version="11.0.0.1", version_compatible=True)
    assert any("engine_host_code_allowed" in text for text in texts(PIP, published, severity="ok"))


def test_a_server_whose_packages_cannot_be_seen_is_a_warning() -> None:
    findings = examine(SERVER, [plan("tensorrt-python"), onnx_model()])
    assert worst(findings) == "warning"
    assert sum("cannot be seen from here" in str(finding) for finding in findings) == 2


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
def test_a_plan_of_another_gpu(
    gpus: tuple[Gpu, ...] | None, engine: dict[str, Any], severity: str, message: str
) -> None:
    findings = texts(replace(SERVER, gpus=gpus), plan(**engine), severity=severity)
    assert any(message in text for text in findings), findings


def test_a_plan_of_tensorrt_for_rtx_on_another_gpu() -> None:
    rtx = plan("tensorrt-python", builder="tensorrt-rtx", version="1.7.1", compute_capabilities=["8.9"], gpu=None)
    deployment = replace(PIP, packages={"tensorrt-rtx": "1.7.1"})
    assert any(
        "built for compute capability 8.9, and this machine has NVIDIA H200" in text
        for text in refusals(deployment, rtx)
    )
    assert not refusals(replace(deployment, gpus=(L4,)), rtx)


def test_a_driver_of_another_minor_version_is_fine() -> None:
    assert not warnings(replace(SERVER, gpus=(replace(H200, driver="580.10.01"),)), plan())


def test_an_onnx_needs_no_gpu() -> None:
    assert not refusals(replace(PIP, gpus=()), onnx_model())


# --- Targets


@pytest.mark.parametrize(
    ("published", "message"),
    [
        (
            plan(),
            "Triton from pip has only the Python backend; run it in a Triton container, or publish it with --target "
            "tensorrt-python",
        ),
        (onnx_model("onnxruntime"), "needs Triton's ONNX Runtime backend"),
    ],
)
def test_triton_from_pip_lacks_the_backend(published: PublishedVersion, message: str) -> None:
    assert any(message in text for text in refusals(PIP, published))


def test_openvino_that_is_missing_or_another() -> None:
    assert "`pip install openvino`" in refusals(replace(PIP, packages={}), onnx_model())[0]
    assert (
        "published with OpenVINO 2025.0, and this machine has 2026.4.1"
        in (warnings(PIP, onnx_model(versions={"openvino": "2025.0"}))[0])
    )


def test_it_knows_every_target_that_can_be_published() -> None:
    assert {name: target.filename for name, target in TARGETS.items()} == MODEL_FILES


def test_onnx_runtime_that_is_missing() -> None:
    findings = examine(PIP, [onnx_model("onnxruntime-python")])
    assert worst(findings) == "will not load"
    assert any("it needs the Python package of onnxruntime" in str(finding) for finding in findings)
    there = replace(PIP, packages={"onnxruntime": "1.31.1"})
    assert worst(examine(there, [onnx_model("onnxruntime-python")])) == "ok"


def test_a_plan_of_tensorrt_for_rtx_needs_its_own_package() -> None:
    published = plan("tensorrt-rtx", builder="tensorrt-rtx", version="1.7.1.116")
    assert any("it needs the Python package of tensorrt-rtx" in str(finding) for finding in examine(PIP, [published]))
    there = replace(PIP, packages={"tensorrt-rtx": "1.7.1.116"})
    assert worst(examine(there, [published])) == "ok"
