"""How it was measured, as sections of a report: the load, the machine, the detector, and the command to repeat it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from triptych.measure.run_file import Environment, ImageSet, Run, Workload
from triptych.report.blocks import Block, Code, Note, Row, Section, Table


def workload_sentence(workload: Workload) -> str:
    """Say in a few words what was asked of the server."""
    rate = f"{workload.rate_per_s:g}" if workload.rate_per_s else "?"
    users = workload.users
    videos = f"{len(workload.sources)} videos" if len(workload.sources) > 1 else "a video"
    asked = {
        "closed": f"{users} user{'s' * (users != 1)} that wait{'s' * (users == 1)} for each answer",
        "constant": f"{rate} requests/s, whatever the answers do",
        "poisson": f"{rate} requests/s at random, whatever the answers do",
        "camera": f"{users} camera{'s' * (users != 1)} with {rate} frames/s",
        "video": f"{videos} with {users} frame{'s' * (users != 1)} in flight",
    }[workload.loop]
    batch = f", {workload.batch} images a request" if workload.batch > 1 else ""
    shape = f", {workload.shape}" if workload.shape != "constant" else ""
    return f"{asked}{batch}{shape}, {workload.duration_s:g} s"


def started(when: str) -> str:
    """Return a time in ISO 8601 to the minute, for a subtitle."""
    return f"{when[:16].replace('T', ' ')} UTC"


def setting(run: Run) -> list[Section]:
    """Return where and how a run was measured."""
    return [
        Section("Workload and load generator", [_workload(run)], folded=True),
        *environment_sections(run.environment),
        again(run.command, run.workload.images),
    ]


def again(command: list[str], images: ImageSet) -> Section:
    """Return the command that measures it again, and which images that takes."""
    size = f"{images.count} image{'s' * (images.count != 1)}, {images.total_bytes / 1e6:.2f} MB"
    note = f"The images must be the same: {size}, SHA-256 {images.sha256}"
    return Section("Measure it again", [Code(shlex.join(command)), Note(note, "small")], folded=True)


def environment_sections(environment: Environment) -> list[Section]:
    """Return the machine, and the detector as it was served and verified."""
    facts = {
        "server": environment.address,
        "CPU": environment.cpu,
        "cores": str(environment.cores),
        "GPU": ", ".join(environment.gpus) or "none",
        **environment.versions,
    }
    return [Section("Environment", [_facts(facts)], folded=True), *_detector(environment)]


def _facts(facts: Mapping[str, str]) -> Table:
    return Table(["", ""], [Row([name, value]) for name, value in facts.items() if value], words=2)


def _workload(run: Run) -> Table:
    workload, client = run.workload, run.client
    requests = client.latencies.count + client.failed
    cpu = f", {1000 * client.cpu_s / requests:.2f} ms a request" if requests else ""
    return _facts(
        {
            "load": workload_sentence(workload),
            "warm-up": f"{workload.warmup_s:g} s",
            "measured": f"{client.seconds:.1f} s, until the last answer",
            "scaled to": ", ".join(workload.sizes),
            "load generators": str(workload.processes),
            "their CPU time": f"{client.cpu_s:.2f} s{cpu}",
            "busiest of them": f"{client.busiest:.0%} of a core",
        }
    )


def _detector(environment: Environment) -> list[Section]:
    detector = environment.detector
    if detector is None:
        return []
    manifest = detector.manifest or {}
    facts = {
        "version": str(detector.version),
        "backend": detector.backend,
        "instances": str(detector.instances),
        "largest batch": str(detector.max_batch),
        **_manifest_facts(manifest),
    }
    blocks: list[Block] = [_facts(facts), *_verification(manifest.get("verification") or {})]
    return [Section("Detector", blocks, folded=True)]


def _manifest_facts(manifest: Mapping[str, Any]) -> dict[str, str]:
    adapted, calibration, engine = (manifest.get(key) or {} for key in ("adapted", "calibration", "engine"))
    spec = adapted.get("spec") or {}
    images = calibration.get("images")
    return {
        **{name: str(manifest.get(name) or "") for name in ("precision", "target")},
        "source": str(adapted.get("source") or ""),
        "head": str(adapted.get("head") or ""),
        "input": f"{spec['width']}x{spec['height']}" if "width" in spec and "height" in spec else "",
        "classes": ", ".join(map(str, spec.get("class_names") or ())),
        "calibration": f"{images} images, {calibration.get('method')}" if images else "",
        "plan": f"{engine.get('builder')} {engine.get('version')}, built on {engine.get('gpu')}" if engine else "",
        "built with": ", ".join(f"{name} {number}" for name, number in (manifest.get("versions") or {}).items()),
        "published": str(manifest.get("published") or "")[:16].replace("T", " "),
        "model's SHA-256": str(manifest.get("model_sha256") or ""),
    }


def _verification(verification: Mapping[str, Any]) -> list[Block]:
    if not verification:
        return []
    passed = bool(verification.get("passed"))
    note = Note(f"Verification {verification.get('verdict', '')}", "good" if passed else "bad")
    rows = [
        Row([str(check.get("name")), _figure(check.get("measured")), _figure(check.get("limit"))])
        for check in verification.get("checks") or ()
    ]
    return [note, *([Table(["check", "measured", "limit"], rows)] if rows else ())]


def _figure(value: Any) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, (int, float)) else "–"
