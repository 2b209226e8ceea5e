"""A version that has a plan for each of several kinds of GPU, as each GPU of a deployment loads it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from triptych.serving.doctor.facts import Deployment, PublishedVersion


def as_loaded(version: PublishedVersion, deployment: Deployment) -> Iterator[tuple[PublishedVersion, Deployment]]:
    """Yield a version with the plan that each kind of GPU takes, and the deployment with the GPUs of that kind.

    Where there is one plan, or the GPUs cannot be seen, that is the version as its manifest has it first.
    """
    plans = version.plans
    if not plans or not deployment.gpus:
        yield version, deployment
        return
    for capability in sorted({gpu.compute_capability for gpu in deployment.gpus}):
        gpus = tuple(gpu for gpu in deployment.gpus if gpu.compute_capability == capability)
        manifest = {**version.manifest, **plans.get(capability, {})}
        place = capability if capability in plans else ""
        yield replace(version, manifest=manifest, place=place), replace(deployment, gpus=gpus)
