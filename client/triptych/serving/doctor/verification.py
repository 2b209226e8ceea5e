"""Whether a gate has passed the very file of a version, on the kind of machine that would load it.

The same build command twice gives two engines. So a verdict is about one file, on one kind of GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from triptych.serving.doctor.facts import Deployment, PublishedVersion
from triptych.serving.doctor.findings import Finding, warning
from triptych.serving.doctor.loading import PLAN_TARGETS, runtime_of, same_release

VERIFY_HERE = "build it there with `triptych build MODEL.onnx --data LABELS`"


def check_verification(version: PublishedVersion, deployment: Deployment, *, required: bool) -> Iterator[Finding]:
    """Yield why no gate vouches for a version here; where a verdict is required, it is not to be served then."""
    for finding in _doubts(version, deployment, required=required):
        yield replace(finding, severity="not to be served") if required else finding


def _doubts(version: PublishedVersion, deployment: Deployment, *, required: bool) -> Iterator[Finding]:
    verdict = version.verification
    if not verdict:
        if version.manifest or required:
            yield warning("not-verified", "it was never verified", "publish it with labelled images to verify it on")
        return
    if not verdict.get("passed"):
        yield warning("verification-failed", "it failed its verification and was published by force")
    about = verdict.get("model_sha256")
    if about not in (None, version.sha256.get(version.filename)):
        yield warning(
            "verified-other-file", f"the gate passed another file than its {version.filename}", "publish it again"
        )
    if version.target in PLAN_TARGETS:
        yield from _doubts_of_plan(version, deployment, required=required)


def _doubts_of_plan(version: PublishedVersion, deployment: Deployment, *, required: bool) -> Iterator[Finding]:
    measured_on = (version.verification.get("gpu") or {}).get("name")
    if not measured_on or "model_sha256" not in version.verification:
        yield warning(
            "verified-somewhere",
            "its verdict does not say which plan it is about and on which GPU, as those of older releases do not",
            VERIFY_HERE,
        )
    elif deployment.gpus is None:
        if required:  # else there is a finding that the GPU cannot be seen
            yield warning("verified-elsewhere", f"it was verified on {measured_on}, and the GPU here cannot be seen")
    else:
        others = sorted({gpu.name for gpu in deployment.gpus} - {measured_on})
        if others:
            yield warning(
                "verified-elsewhere",
                f"it was verified on {measured_on}, and {deployment.name} has {', '.join(others)}",
                VERIFY_HERE,
            )
    built, here = str(version.engine.get("version", "")), runtime_of(version, deployment)
    # Any other plan does not load at all.
    if version.engine.get("version_compatible") and here and not same_release(built, here):
        yield warning(
            "verified-other-tensorrt",
            f"it was verified with TensorRT {built}, and {deployment.name} has {here}",
            VERIFY_HERE,
        )
