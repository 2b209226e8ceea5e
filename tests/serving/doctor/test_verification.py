"""The rule that a plan whose hash no gate has passed is not served, for every way in which one may have none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from support.doctor_facts import ENGINE, H200, L4, PIP, SERVER, find, onnx_model, plan
from triptych.serving.doctor import PublishedVersion, examine, worst

PASSED = {"passed": True, "model_sha256": "aa", "gpu": {"name": "NVIDIA H200"}}


def said(verification: object, **engine: object) -> PublishedVersion:
    published = plan(**engine)  # type: ignore[arg-type]
    return replace(published, manifest={**published.manifest, "verification": verification})


def test_a_plan_that_the_gate_passed_here_is_served() -> None:
    assert worst(examine(SERVER, [plan()], verified=True)) == "ok"
    assert worst(examine(PIP, [onnx_model()], verified=True)) == "ok"


@pytest.mark.parametrize(
    ("published", "id", "message"),
    [
        (said(None), "not-verified", "it was never verified"),
        (said({**PASSED, "passed": False}), "verification-failed", "was published by force"),
        (said({**PASSED, "model_sha256": "bb"}), "verified-other-file", "another file than its model.plan"),
        (said({"passed": True}), "verified-somewhere", "does not say which plan it is about and on which GPU"),
        (said({**PASSED, "gpu": None}), "verified-somewhere", "on which GPU"),
        (said({**PASSED, "gpu": {"name": "NVIDIA L4"}}), "verified-elsewhere", "verified on NVIDIA L4, and the server"),
        (
            said(PASSED, version="10.13.0", version_compatible=True),
            "verified-other-tensorrt",
            "with TensorRT 10.13.0, and the server at gpu:8001 has 11.1.0.106",
        ),
        (replace(plan(), manifest={}), "not-verified", "it was never verified"),
    ],
)
def test_what_no_gate_has_passed_here_is_not_to_be_served(
    published: PublishedVersion,
    id: str,  # noqa: A002
    message: str,
) -> None:
    strict = find(examine(SERVER, [published], verified=True), id)
    assert strict.severity == "not to be served"
    assert message in strict.text
    if published.manifest:
        assert find(examine(SERVER, [published]), id).severity == "warning"


def test_a_gpu_that_cannot_be_seen_proves_nothing() -> None:
    findings = examine(replace(SERVER, gpus=None), [plan()], verified=True)
    assert find(findings, "verified-elsewhere").severity == "not to be served"


def test_a_plan_that_changed_after_the_gate_will_not_load() -> None:
    findings = examine(SERVER, [replace(plan(), sha256={"model.plan": "cc"})], verified=True)
    assert worst(findings) == "will not load"
    assert {"model-changed", "verified-other-file"} <= {finding.id for finding in findings}


def test_only_the_served_version_counts() -> None:
    old = replace(plan(), number=2, is_served=False, sha256={})
    assert worst(examine(SERVER, [plan(), old])) == "will not load"
    assert worst(examine(SERVER, [plan(), old], verified=True)) == "ok"


# --- One version for several kinds of GPU


def for_two(**of_l4: Any) -> PublishedVersion:
    """Return a version with plans for both, of which the second differs."""
    first = plan()
    other = {
        "model_sha256": "bb",
        "engine": ENGINE | {"compute_capabilities": ["8.9"], "gpu": "NVIDIA L4"},
        "verification": {"passed": True, "model_sha256": "bb", "gpu": {"name": "NVIDIA L4"}},
    }
    manifest = {**first.manifest, "plans": {"8.9": other | of_l4}}
    return replace(first, manifest=manifest, sha256={"model.plan": "aa", "model.plan.8.9": "bb"})


@pytest.mark.parametrize("gpus", [(H200,), (L4,), (H200, L4)])
def test_every_gpu_has_the_plan_for_it(gpus: Any) -> None:
    assert worst(examine(replace(SERVER, gpus=gpus), [for_two()], verified=True)) == "ok"


def test_each_plan_needs_its_own_verdict() -> None:
    unverified = for_two(verification=None)
    assert worst(examine(SERVER, [unverified], verified=True)) == "ok"
    findings = examine(replace(SERVER, gpus=(H200, L4)), [unverified], verified=True)
    assert find(findings, "not-verified").subject == "version 1 (served), plan for 8.9"


def test_a_plan_that_is_missing_for_one_gpu_is_named() -> None:
    gone = replace(for_two(), sha256={"model.plan": "aa"})
    assert worst(examine(SERVER, [gone])) == "ok"
    assert find(examine(replace(SERVER, gpus=(L4,)), [gone]), "model-missing").text == "its model.plan.8.9 is missing"


def test_a_gpu_without_a_plan_is_held_against_the_first() -> None:
    other = replace(L4, name="NVIDIA A10", compute_capability="8.6")
    findings = examine(replace(SERVER, gpus=(other,)), [for_two()])
    assert "it was built for compute capability 9.0" in find(findings, "gpu-unfit").text
