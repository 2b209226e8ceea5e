"""The whole build line as a user runs it: the demo detector in every precision, through the real server."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from support import ROOT
from support.detectors import conv_model, raw_model
from triptych.serving.repository import versions
from triptych_demo.detector.boards import write_set

DEMO = ROOT / "demo" / "pcb.onnx"
QAT = ROOT / "demo" / "pcb_qat.onnx"

Build = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 boards that no detector was trained or calibrated on, with their labels."""
    directory = tmp_path_factory.mktemp("boards") / "held-out"
    write_set(directory, 1000, 100, 2)
    return directory / "instances.json"


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("calibration") / "boards"
    write_set(directory, 77, 64, 2)
    return directory / "images"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository without a detector, and a cache beside it."""
    directory = tmp_path_factory.mktemp("shop")
    return empty_repository(directory)


def empty_repository(directory: Path) -> Path:
    repository = directory / "model_repository"
    shutil.copytree(ROOT / "model_repository", repository, ignore=shutil.ignore_patterns("[0-9]*", "config.pbtxt"))
    for model in ("detection", "preprocess", "postprocess"):
        shutil.copytree(ROOT / "model_repository" / model, repository / model, dirs_exist_ok=True)
    return repository


def build(*words: object, repository: Path, shell: str = "") -> subprocess.CompletedProcess[str]:
    """`python build WORDS` from the project's root."""
    command = [sys.executable, "build", *words, "--repository", repository, "--cache", repository.parent / "cache"]
    text = [str(word) for word in command]
    if shell:
        text = ["bash", "-c", f'{shell}; exec "$@"', "bash", *text]
    return subprocess.run(text, cwd=ROOT, capture_output=True, text=True, check=False)


def reports(repository: Path) -> dict[str, dict[str, Any]]:
    """The manifests of the published versions, by source and precision."""
    found = (version.manifest for version in versions(repository))
    return {f"{manifest['adapted']['source']} {manifest['precision']}": manifest for manifest in found}


def points(manifest: dict[str, Any], side: str) -> float:
    return 100 * float(manifest["verification"][side]["map50_95"])


@pytest.mark.triton
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_every_precision_of_the_demo_keeps_its_accuracy(shop: Path, held_out: Path, calibration: Path) -> None:
    """fp16 within 0.1 point of mAP50-95, int8 within 1.0 after calibration and within 0.5 after training on."""
    precisions = ("--precision", "fp32", "fp16", "int8", "--calibration", calibration, "--data", held_out)
    first = build(DEMO, *precisions, repository=shop)
    assert first.returncode == 0, first.stderr
    assert "only 64 calibration images; 200 or more are advised" in first.stdout
    trained = build(QAT, "--reference", DEMO, "--precision", "int8", "--data", held_out, repository=shop)
    assert trained.returncode == 0, trained.stderr

    found = reports(shop)
    source = points(found["pcb.onnx fp32"], "source")
    assert source > 75, "the source itself is off"
    drops = {name: source - points(manifest, "deployed") for name, manifest in found.items()}
    print({name: round(drop, 3) for name, drop in drops.items()})
    assert abs(drops["pcb.onnx fp32"]) <= 0.05
    assert drops["pcb.onnx fp16"] <= 0.1
    assert drops["pcb.onnx int8"] <= 1.0
    assert drops["pcb_qat.onnx int8"] <= 0.5
    assert found["pcb.onnx int8"]["calibration"]["images"] == 64
    assert all(manifest["verification"]["passed"] for manifest in found.values())

    # Once more: nothing is made, verified or published again.
    published = [version.number for version in versions(shop)]
    again = build(DEMO, *precisions, repository=shop)
    assert again.returncode == 0, again.stderr
    assert [version.number for version in versions(shop)] == published
    for told in ("pcb.onnx was adapted before", "int8 was made before", "fp16 was made before"):
        assert told in again.stdout
    assert again.stdout.count("passed before") == 3


@pytest.mark.triton
@pytest.mark.slow
def test_what_the_gate_refuses_is_not_published(tmp_path: Path, held_out: Path) -> None:
    repository = empty_repository(tmp_path)
    limits = ("--data", held_out, "--p95-ms", "0.1")
    refused = build(DEMO, *limits, repository=repository)
    assert refused.returncode == 1
    assert "fp32 was not published" in refused.stderr
    assert "p95 latency" in refused.stderr
    assert versions(repository) == []
    forced = build(DEMO, *limits, "--force", repository=repository)
    assert forced.returncode == 0, forced.stderr
    assert "fp32 was published all the same, as --force says" in forced.stdout
    (version,) = versions(repository)
    assert version.manifest["verification"]["passed"] is False


def cut_short(directory: Path) -> Path:
    path = directory / "cut.onnx"
    path.write_bytes(DEMO.read_bytes()[:100_000])
    return path


def text_file(directory: Path) -> Path:
    path = directory / "words.onnx"
    path.write_text("not a model")
    return path


def classifier(directory: Path) -> Path:
    return conv_model(
        directory / "classifier.onnx",
        "output0 = GlobalAveragePool (cells)",
        "N, 7, 1, 1",
        7,
    )


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        pytest.param(text_file, "is not a whole ONNX model", id="wrong file"),
        pytest.param(cut_short, "is not a whole ONNX model", id="cut short"),
        pytest.param(classifier, "head", id="unsupported head"),
        pytest.param(lambda directory: directory / "none.onnx", "there is no file", id="no file"),
    ],
)
def test_a_source_that_cannot_be_built(tmp_path: Path, make: Callable[[Path], Path], sentence: str) -> None:
    repository = empty_repository(tmp_path)
    check_refusal(build(make(tmp_path), repository=repository), sentence, repository)


def check_refusal(outcome: subprocess.CompletedProcess[str], sentence: str, repository: Path) -> None:
    """One sentence on standard error, exit code 1, nothing published, nothing half-written."""
    assert outcome.returncode == 1, outcome.stdout
    assert outcome.stderr.startswith("error: ")
    assert "Traceback" not in outcome.stderr
    assert len(outcome.stderr.strip().splitlines()) == 1, outcome.stderr
    assert sentence in outcome.stderr
    assert versions(repository) == []
    assert [path.name for path in repository.parent.rglob(".*") if path.is_file()] == [".gitkeep"]


def test_an_empty_calibration_directory(tmp_path: Path) -> None:
    repository = empty_repository(tmp_path)
    (tmp_path / "images").mkdir()
    outcome = build(DEMO, "--precision", "int8", "--calibration", tmp_path / "images", repository=repository)
    check_refusal(outcome, "holds no images to calibrate with", repository)


def test_int8_without_calibration_images(tmp_path: Path) -> None:
    repository = empty_repository(tmp_path)
    check_refusal(build(DEMO, "--precision", "int8", repository=repository), "needs images to calibrate", repository)


def test_labels_that_fit_no_image(tmp_path: Path) -> None:
    repository = empty_repository(tmp_path)
    labels = {
        "images": [{"id": 1, "file_name": "elsewhere.jpg", "width": 640, "height": 640}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0}],
        "categories": [{"id": 1, "name": "open"}],
    }
    (tmp_path / "instances.json").write_text(json.dumps(labels))
    outcome = build(DEMO, "--data", tmp_path / "instances.json", repository=repository)
    check_refusal(outcome, "elsewhere.jpg", repository)


@pytest.mark.parametrize("blocks", [100, 3000], ids=["at once", "in the middle"])
def test_a_disk_that_takes_no_more(tmp_path: Path, blocks: int) -> None:
    """A limit on the size of files refuses a write as a full disk does."""
    repository = empty_repository(tmp_path)
    outcome = build(DEMO, repository=repository, shell=f"ulimit -f {blocks}")
    check_refusal(outcome, "File too large", repository)
    assert list((repository / "detector").glob("*/")) == []


def test_a_target_that_needs_what_is_not_installed(tmp_path: Path) -> None:
    """On a machine with TensorRT this builds; the sentence is for the others."""
    pytest.importorskip("onnx")
    try:
        import tensorrt  # noqa: F401
    except ImportError:
        repository = empty_repository(tmp_path)
        outcome = build(raw_model(tmp_path / "raw.onnx"), "--target", "tensorrt", repository=repository)
        check_refusal(outcome, "tensorrt is not installed", repository)
        return
    pytest.skip("TensorRT is installed here")


@pytest.mark.slow
def test_plans_for_a_gpu_that_is_not_here(tmp_path: Path, calibration: Path) -> None:
    """TensorRT for RTX builds without a GPU; what cannot be run here is published unverified, and says so."""
    pytest.importorskip("tensorrt_rtx_libs")
    repository = empty_repository(tmp_path)
    words = ("--target", "tensorrt-rtx", "--precision", "fp32", "fp16", "int8", "--calibration", calibration)
    outcome = build(DEMO, *words, "--method", "max", repository=repository)
    assert outcome.returncode == 0, outcome.stderr
    assert "verify: skipped" in outcome.stdout
    found = versions(repository)
    assert [version.manifest["precision"] for version in found] == ["fp32", "fp16", "int8"]
    for version in found:
        assert version.manifest["engine"]["plan_bytes"] == (version.directory / "model.plan").stat().st_size
        assert version.manifest["verification"] is None
    assert onnx.load(DEMO).graph.node  # the source is untouched
