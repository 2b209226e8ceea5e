"""One version with a plan for each of several kinds of GPU: which plan belongs to which version, and its manifest.

A plan runs on one kind of GPU. For Triton's TensorRT backend, plans of one model for several compute capabilities make
one version together, and Triton takes the one that its GPU runs (`cc_model_filenames`). `model.plan` is the first of
them. The manifest has the others under `plans`, by compute capability, each with its own hash, record and verdict.
"""

from __future__ import annotations

from typing import Any

OWN = ""
"""Stands for the version's first file, where others are named by their compute capability."""

OF_ONE_FILE = ("published", "model_sha256", "layers", "engine", "verification")
"""What a manifest says of one file; all else it says of the version."""


def place_of(record: dict[str, Any], manifest: dict[str, Any]) -> str | None:
    """Return where a file belongs in a version: `OWN`, or the compute capability whose plan it is; None: nowhere.

    Args:
        record: what the file's own manifest would be.
        manifest: the version's.
    """
    if manifest.get("target") != record["target"]:
        return None
    if manifest.get("model_sha256") == record["model_sha256"]:
        return OWN
    plans = manifest.get("plans") or {}
    same = [capability for capability, plan in plans.items() if plan["model_sha256"] == record["model_sha256"]]
    return same[0] if same else _joins(record, manifest, plans)


def _joins(record: dict[str, Any], manifest: dict[str, Any], plans: dict[str, Any]) -> str | None:
    """Return the compute capability that a plan adds to a version of the same model; None if it does not."""
    # Only Triton's own backend chooses among several plans.
    if record["target"] != "tensorrt":
        return None
    engine, first = record["engine"], manifest.get("engine") or {}
    known = {*(first.get("compute_capabilities") or ()), *plans}
    alike = [manifest.get(key) == record[key] for key in ("precision", "adapted", "calibration")]
    alike += [first.get(key) == engine[key] for key in ("version", "profiles", "hardware_compatibility")]
    capabilities = engine["compute_capabilities"]
    # A plan for every GPU has nothing to add, and neither has one for a GPU that nobody knows.
    if not all(alike) or len(capabilities) != 1 or not known or engine["hardware_compatibility"] == "ampere_plus":
        return None
    return None if capabilities[0] in known else str(capabilities[0])


def merged(record: dict[str, Any], manifest: dict[str, Any], place: str) -> dict[str, Any]:
    """Return what a version's manifest becomes when a file is published into a place of it.

    What the gate said of this very file stays, if it was not asked again.
    """
    plans: dict[str, Any] = manifest.get("plans") or {}
    before = plans.get(place, {}) if place else manifest
    if record["verification"] is None and before.get("model_sha256") == record["model_sha256"]:
        record = record | {"verification": before.get("verification")}
    if place:
        return manifest | {"plans": plans | {place: {key: record[key] for key in OF_ONE_FILE}}}
    return record | ({"plans": plans} if plans else {})


def filenames(manifest: dict[str, Any], usual: str) -> dict[str, str]:
    """Return the file of each compute capability, for a version with several plans; else none.

    >>> filenames({"engine": {"compute_capabilities": ["9.0"]}, "plans": {"8.9": {}}}, "model.plan")
    {'9.0': 'model.plan', '8.9': 'model.plan.8.9'}
    """
    plans = manifest.get("plans") or {}
    own = manifest["engine"]["compute_capabilities"] if plans else ()
    return {**dict.fromkeys(own, usual), **{capability: filename(usual, capability) for capability in plans}}


def filename(usual: str, place: str) -> str:
    """Return what the file in a place of a version is called."""
    return f"{usual}.{place}" if place else usual
