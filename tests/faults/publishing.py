"""Models that are cut or changed on the disk, and a disk that fills while a model is published."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

from faults import private
from faults.scenario import Bench, Outcome, Scenario, Skipped, judge
from triptych import DetectionClient
from triptych.serving.repository import activate
from triptych_build.publish.publish import publish
from triptych_build.publish.target import InstanceGroup

REFUSED = 1


def cut_model(bench: Bench) -> Outcome:
    """Publish a model that is cut in half, with the server to switch over."""
    cut = bench.directory / "cut.onnx"
    whole = bench.adapted.read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    return _refused(bench, ["publish", cut, "--address", bench.service.address])


def cut_version(bench: Bench) -> Outcome:
    """Cut the model of a published version, as a copy that broke off does, and activate it."""
    version = _publish(bench)
    model = version / "model.onnx"
    model.write_bytes(model.read_bytes()[: model.stat().st_size // 2])
    return _refused(bench, ["activate", version.name, "--address", bench.service.address], version)


def changed_version(bench: Bench) -> Outcome:
    """Change a byte of a version's model, so that its hash is not that of its manifest, and activate it."""
    version = _publish(bench)
    model = version / "model.onnx"
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 0xFF
    model.write_bytes(data)
    return _refused(bench, ["activate", version.name, "--address", bench.service.address], version)


def full_disk(bench: Bench) -> Outcome:
    """Publish into a repository whose disk is full."""
    if not private.is_private():
        raise Skipped("no mounts of our own")
    disk = bench.directory / "disk"
    private.mount(disk, 2)
    try:
        repository = disk / "model_repository"
        shutil.copytree(bench.service.repository, repository, ignore=shutil.ignore_patterns("__pycache__"))
        before = _files(repository)
        # Some room is left: it runs out in the middle of the model.
        filler = private.fill(disk)
        with filler.open("r+b") as file:
            file.truncate(max(0, filler.stat().st_size - bench.adapted.stat().st_size // 2))
        other = bench.directory / "other.onnx"
        _other_model(bench.adapted, other)
        outcome = _refused(bench, ["publish", other], repository=repository)
        if (after := _files(repository)) != before:
            outcome.broken.append(f"files were left or lost: {sorted(set(after) ^ set(before))}")
        filler.unlink()
        if (code := _triptych(["publish", other], repository).returncode) != 0:
            outcome.broken.append(f"with room again publishing ends with code {code}")
        return outcome
    finally:
        private.unmount(disk)


def _publish(bench: Bench) -> Path:
    """Publish a version that nobody activates."""
    other = bench.directory / "other.onnx"
    _other_model(bench.adapted, other)
    return publish(other, "openvino", bench.service.repository, InstanceGroup(count=1, threads=1))


def _other_model(model: Path, path: Path) -> None:
    """Write a model with other weights, which is a version of its own."""
    import onnx

    graph = onnx.load(model)
    graph.doc_string = "another"
    graph.graph.doc_string = "another"
    onnx.save(graph, path)


def _files(repository: Path) -> list[str]:
    return sorted(
        str(path.relative_to(repository)) for path in repository.rglob("*") if "__pycache__" not in path.parts
    )


def _refused(bench: Bench, words: list[object], version: Path | None = None, repository: Path | None = None) -> Outcome:
    """Run a command that must be refused in one sentence, while users go on being answered."""
    with bench.users() as users:
        time.sleep(0.5)
        fault_s = time.monotonic()
        done = _triptych(words, repository or bench.service.repository)
        time.sleep(1)
    with DetectionClient(bench.service.address) as client:
        served = client.statistics()["detector"]
    if version is not None:
        activate(bench.service.repository, 1)
        shutil.rmtree(version)
    tally = users.tally(fault_s)
    broken = judge(tally, may_fail=False)
    sentence = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else ""
    if done.returncode != REFUSED or not sentence.startswith("error: ") or "Traceback" in done.stderr:
        broken.append(f"`triptych {words[0]}` ended with code {done.returncode} and said {sentence[:300]!r}")
    if list(served.versions) != ["1"]:
        broken.append(f"version {served.versions} is served")
    return Outcome(tally, broken, sentence.partition(";")[0][:160].replace("|", "/").replace(str(bench.directory), "…"))


def _triptych(words: list[object], repository: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "triptych", *map(str, words), "--model-repository", str(repository)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


_HOLDS = "the command is refused in one sentence, and the version from before is served on without a failure"

SCENARIOS = [
    Scenario("cut-model", "publish an ONNX file that is cut in half", _HOLDS, cut_model, is_short=False),
    Scenario("cut-version", "activate a version whose model is cut in half", _HOLDS, cut_version),
    Scenario("changed-version", "activate a version whose model is not that of its manifest", _HOLDS, changed_version),
    Scenario(
        "full-disk-publishing",
        "publish onto a disk that fills up",
        "it is refused in one sentence, nothing is left half done, and with room again it works",
        full_disk,
    ),
]
