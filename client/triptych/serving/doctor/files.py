"""Whether the files of a version are those that were published, and its configuration fits model and ensemble."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tritonclient.grpc import model_config_pb2

from triptych.contract import CANDIDATE_FIELDS, CANDIDATES, PIXELS
from triptych.model_config import names_itself
from triptych.serving.doctor.facts import PublishedVersion
from triptych.serving.doctor.findings import Finding, refusal, warning

PUBLISH_AGAIN = "publish it again"


def check_files(version: PublishedVersion) -> Iterator[Finding]:
    """Compare the model's file with what the manifest says of it."""
    if not version.manifest:
        yield warning(
            "manifest-unreadable", "it has no manifest that can be read, so it can hardly be checked", PUBLISH_AGAIN
        )
        return
    name = version.filename
    if not name:
        yield warning("target-unknown", f"its target {version.target!r} is not known to this release of Triptych")
    elif name not in version.sha256:
        yield refusal("model-missing", f"its {name} is missing", PUBLISH_AGAIN)
    elif version.sha256[name] != version.manifest.get("model_sha256"):
        planned = version.engine.get("plan_bytes")
        size = f" ({version.sizes.get(name)} bytes of {planned})" if planned else ""
        yield refusal("model-changed", f"its {name} is not the file that was published{size}", PUBLISH_AGAIN)


def check_config(version: PublishedVersion, ensemble_batch: int) -> Iterator[Finding]:
    """Compare the configuration with the version's number, with the engine, and with the ensemble's batches."""
    config = version.config
    if config is None:
        yield refusal("config-unreadable", version.config_error, PUBLISH_AGAIN)
        return
    if list(config.version_policy.specific.versions) not in ([], [version.number]):
        yield refusal("config-version", f"its config.pbtxt serves another version than {version.number}", PUBLISH_AGAIN)
    for name, dims, expected in _tensors(version, config):
        if dims is None:
            yield refusal("config-shape", f"its config.pbtxt does not say {name}, but the model has it", PUBLISH_AGAIN)
        elif not _fit(dims, expected):
            yield refusal(
                "config-shape", f"its config.pbtxt says {name} {dims}, but the model has {expected}", PUBLISH_AGAIN
            )
    yield from _check_batch(version, config.max_batch_size, ensemble_batch)


def _check_batch(version: PublishedVersion, configured: int, ensemble_batch: int) -> Iterator[Finding]:
    """Compare the largest batch of the configuration with the ensemble's and the engine's."""
    forms = f"its config.pbtxt forms batches of up to {configured}"
    if configured < ensemble_batch:
        yield refusal(
            "batch-below-ensemble",
            f"{forms}, and the ensemble brings {ensemble_batch}",
            f"build it for batches of up to {ensemble_batch}",
        )
    bounds = _batch_bounds(version.engine)
    if bounds is None:
        return
    smallest, largest = bounds
    if configured > largest:
        yield refusal("batch-above-engine", f"{forms}, but its engine takes {largest} at most", PUBLISH_AGAIN)
    if smallest > 1:
        yield warning(
            "single-image-refused", f"its engine takes batches of {smallest} and more, so that a single image fails"
        )


def _tensors(
    version: PublishedVersion, config: model_config_pb2.ModelConfig
) -> Iterator[tuple[str, list[int] | None, list[int]]]:
    """Yield name, dims of the configuration (None where it has none) and dims of the model of each known tensor."""
    engine, adapted = version.engine, version.manifest.get("adapted") or {}
    known = {
        tensor["name"]: list(tensor["shape"][1:]) for side in ("inputs", "outputs") for tensor in engine.get(side, ())
    }
    spec = adapted.get("spec") or {}
    if not known and spec and "candidates" in adapted:
        known = {PIXELS.name: [spec["height"], spec["width"], 3], CANDIDATES.name: [adapted["candidates"], 6]}
    said = {tensor.name: list(tensor.dims) for tensor in (*config.input, *config.output)}
    if names_itself(config):
        said[CANDIDATES.name][-1] = len(CANDIDATE_FIELDS)
    for name, dims in known.items():
        yield name, said.get(name), dims


def _fit(one: list[int], other: list[int]) -> bool:
    return len(one) == len(other) and all(-1 in pair or pair[0] == pair[1] for pair in zip(one, other, strict=True))


def _batch_bounds(engine: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the smallest and the largest batch of an engine."""
    profiles = engine.get("profiles") or ()
    if profiles:
        return min(profile["min"] for profile in profiles), max(profile["max"] for profile in profiles)
    fixed = [tensor["shape"][0] for tensor in engine.get("inputs", ()) if tensor["shape"][0] > 0]
    return (fixed[0], fixed[0]) if fixed else None
