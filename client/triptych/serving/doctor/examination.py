"""All checks, in order: of the deployment, then version by version."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from triptych.contract import MAX_BATCH
from triptych.serving.doctor.age import check_age
from triptych.serving.doctor.facts import Deployment, PublishedVersion, tensorrt_command
from triptych.serving.doctor.files import check_config, check_files
from triptych.serving.doctor.findings import Finding, passed, refusal, warning, worst
from triptych.serving.doctor.loading import check_loading
from triptych.serving.doctor.plans import as_loaded
from triptych.serving.doctor.verification import check_verification


def examine(
    deployment: Deployment,
    published: Iterable[PublishedVersion],
    ensemble_batch: int = MAX_BATCH,
    *,
    verified: bool = False,
) -> list[Finding]:
    """Return all findings: about the deployment, then version by version.

    Args:
        deployment: what would load the versions.
        published: the versions.
        ensemble_batch: the largest batch that the ensemble hands to the detector.
        verified: look at the version alone that is served; it is not to be served if no gate has passed it here.
    """
    versions = list(published)
    findings = [
        replace(finding, subject=deployment.name)
        for check in (_check_deployment(deployment), _check_served(deployment, versions))
        for finding in check
    ]
    for version in versions:
        if verified and not version.is_served:
            continue
        checks = [(version, check_config(version, ensemble_batch)), (version, check_age(version, deployment))]
        for plan, where in as_loaded(version, deployment):
            checks += [(plan, check_files(plan)), (plan, check_loading(plan, where))]
            checks.append((plan, check_verification(plan, where, required=verified)))
        of_version = [replace(finding, subject=about.subject) for about, check in checks for finding in check]
        if worst(of_version) != "will not load":
            loads = passed("loads", f"nothing found that keeps {deployment.name} from loading it")
            of_version.append(replace(loads, subject=version.subject))
        findings += of_version
    return findings


def _check_deployment(deployment: Deployment) -> Iterator[Finding]:
    """Yield what was seen while the facts were gathered, and which release of Triton it is."""
    for error in deployment.errors:
        yield refusal("deployment-error", error)
    for doubtful in deployment.warnings:
        yield warning("deployment-warning", doubtful)
    if deployment.triton and not deployment.is_pip:
        yield _check_release(deployment)
    if deployment.bulletins:
        yield warning(
            "triton-bulletins",
            f"Triton {deployment.triton} is container {deployment.container}, and NVIDIA's bulletins name "
            f"vulnerabilities of it: {'; '.join(deployment.bulletins)}",
            "use 26.07 or newer, the first without known ones, or keep it from networks that you do not trust",
        )


def _check_release(deployment: Deployment) -> Finding:
    """Return which TensorRT comes with a release of Triton, and what builds plans for it."""
    release = f"Triton {deployment.triton} is container {deployment.container or '(not known)'}"
    if not deployment.tensorrt:
        return warning("triton-release-unknown", f"{release}, and which TensorRT it has is not known")
    text = f"{release}, with TensorRT {deployment.tensorrt}"
    if not deployment.trt_version:
        text += " in its standard image (others, such as those for TensorRT-LLM, have another)"
    return passed("triton-release", f"{text}; plans for it are built after `{tensorrt_command(deployment.tensorrt)}`")


def _check_served(deployment: Deployment, versions: list[PublishedVersion]) -> Iterator[Finding]:
    """Compare the version that the repository serves with what a running server serves."""
    served = [version.number for version in versions if version.is_served]
    if not served:
        yield refusal(
            "nothing-served",
            "the repository serves no version",
            "publish one with `triptych build MODEL.onnx`, or choose one with `triptych activate VERSION`",
        )
    elif deployment.serving is not None and set(served) != deployment.serving:
        now = ", ".join(map(str, sorted(deployment.serving))) or "none"
        yield warning(
            "other-version-served",
            f"it serves version {now} of the detector and the repository says {served[0]}",
            f"switch with `triptych activate {served[0]} --address HOST:PORT`",
        )
