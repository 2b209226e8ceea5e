"""The build line on a small detector. A gate that knows its verdicts stands for the one that serves the detector."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
from PIL import Image

from support import ROOT
from support.detectors import conv_model, raw_model
from support.reports import report
from triptych.errors import BuildError, TriptychError
from triptych.machine import Gpu
from triptych.serving.repository import versions
from triptych_build import line as line_module
from triptych_build.built import Built
from triptych_build.line import Line, LineOptions
from triptych_build.publish.target import TargetName
from triptych_build.quantize.calibrate import Calibration
from triptych_build.verify.latency import Latency
from triptych_build.verify.limits import Check, Gate
from triptych_build.verify.report import Report

DEMO = ROOT / "demo" / "pcb.onnx"


@pytest.fixture
def options(tmp_path: Path) -> LineOptions:
    """A small detector, a model repository without one, and a cache."""
    repository = tmp_path / "model_repository"
    for model in ("detection", "preprocess", "postprocess"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "model_repository" / model, repository / model, ignore=ignored)
    return LineOptions(raw_model(tmp_path / "raw.onnx"), repository=repository, cache=tmp_path / "cache")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Noise, without labels."""
    directory = tmp_path / "images"
    directory.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    for number, pixels in enumerate(noise):
        Image.fromarray(pixels).save(directory / f"{number}.png")
    return directory


Verdicts = dict[str, tuple[str, float]]


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> tuple[Verdicts, list[tuple[str, str, Gate]]]:
    """Verdict and p50 by precision, to be set; and what was asked: precision, target and limits."""
    verdicts: Verdicts = {}
    asked: list[tuple[str, str, Gate]] = []

    @contextmanager
    def served(line: Line, built: Built, served_as: str, log: Path) -> Iterator[str]:
        yield f"{built.precision} as {served_as}"

    def verify(address: str, source: Path, dataset: object, limits: Gate, *, precision: str, **_: object) -> Report:
        asked.append((precision, address.rpartition(" ")[2], limits))
        verdict, p50_ms = verdicts[precision]
        check = Check(verdict, 0, 0, "passed" if verdict == "passed" else "refused")
        return replace(report(check, precision=precision), gate=limits, latency=Latency.of([p50_ms]))

    def latency(address: str, images: object, *, has_limit: bool) -> Latency:
        return Latency.of([verdicts[address.partition(" ")[0]][1]])

    monkeypatch.setattr(Line, "_served", served)
    monkeypatch.setattr(line_module, "verify", verify)
    monkeypatch.setattr(line_module, "measure_latency", latency)
    return verdicts, asked


def run(options: LineOptions) -> tuple[list[Built], list[str]]:
    lines: list[str] = []
    return Line(options, lines.append).run(), lines


def published(options: LineOptions) -> dict[str, Any]:
    """Return the versions' numbers by precision, with a star at the one that is served."""
    return {
        version.manifest["precision"]: f"{version.number}{'*' if version.is_served else ''}"
        for version in versions(options.repository)
    }


def test_without_anything_to_verify_with(options: LineOptions) -> None:
    built, lines = run(replace(options, precisions=("fp32", "fp16")))
    assert [(one.precision, one.report, one.passed) for one in built] == [("fp32", None, True), ("fp16", None, True)]
    assert published(options) == {"fp32": "1*", "fp16": "2"}
    assert lines[0] == "adapt: head raw, 5 classes, 64x64, rgb"
    assert "verify: skipped, since there is nothing to verify with; name labelled images with --data" in lines
    assert lines[-1] == "publish: the next start serves version 1"


def test_nothing_is_made_twice(
    options: LineOptions,
    images: Path,
    gate: tuple[Verdicts, list[tuple[str, str, Gate]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    verdicts, asked = gate
    verdicts.update(fp32=("passed", 10), fp16=("passed", 5))
    options = replace(options, precisions=("fp32", "fp16"), data=images)
    run(options)
    built, lines = run(options)
    assert len(asked) == 2
    assert published(options) == {"fp32": "1", "fp16": "2*"}
    for line in ("adapt: raw.onnx was adapted before", "quantize: fp16 was made before"):
        assert line in lines
    assert sum("passed (accuracy was measured before)" in line for line in lines) == 2
    assert [one.p50_ms for one in built] == [10, 5]
    verdicts["fp16"] = ("passed", 30)
    built, _ = run(options)
    assert [one.p50_ms for one in built] == [10, 30], "latency is measured each time"
    assert published(options) == {"fp32": "1*", "fp16": "2"}

    run(replace(options, gates={"fp16": Gate(p95_ms=3)}))
    assert asked[2:] == [("fp16", "openvino", Gate(p95_ms=3))], "other limits are another question"
    (options.repository / "preprocess" / "1" / "model.py").write_text("# other code")
    run(options)
    assert len(asked) == 5, "a detector among other models is another question, too"
    monkeypatch.setattr(line_module, "cpu_features", lambda: "amx_int8")
    run(options)
    assert len(asked) == 7, "on another machine, too"


def test_a_model_with_new_weights_in_a_file_of_their_own_is_another_model(options: LineOptions, tmp_path: Path) -> None:
    model = onnx.load(options.model)
    split = tmp_path / "split.onnx"
    published_weights = []
    for factor in (1, 2):
        weight = onnx.numpy_helper.to_array(model.graph.initializer[0]) * factor
        tensor = onnx.numpy_helper.from_array(weight, model.graph.initializer[0].name)
        again = onnx.ModelProto()
        again.CopyFrom(model)
        again.graph.initializer[0].CopyFrom(tensor)
        (tmp_path / "split.data").unlink(missing_ok=True)
        onnx.save(again, split, save_as_external_data=True, location="split.data", size_threshold=0)
        run(replace(options, model=split))
        newest = onnx.load(versions(options.repository)[-1].directory / "model.onnx")
        arrays = {one.name: onnx.numpy_helper.to_array(one) for one in newest.graph.initializer}
        published_weights.append(arrays[tensor.name])
    assert len(versions(options.repository)) == 2
    assert np.array_equal(published_weights[1], 2 * published_weights[0])
    hashes = {version.manifest["adapted"]["source_sha256"] for version in versions(options.repository)}
    assert len(hashes) == 2


def test_what_the_gate_refuses_is_not_published(
    options: LineOptions, images: Path, gate: tuple[Verdicts, list[tuple[str, str, Gate]]]
) -> None:
    verdicts, _ = gate
    verdicts.update(fp32=("passed", 10), fp16=("too slow", 5))
    options = replace(options, precisions=("fp32", "fp16"), data=images)
    built, lines = run(options)
    assert [one.version is not None for one in built] == [True, False]
    assert published(options) == {"fp32": "1*"}
    assert any(line.startswith("verify: fp16 refused; the report is ") for line in lines)
    run(replace(options, force=True))
    assert published(options) == {"fp32": "1*", "fp16": "2"}, "what was refused is not served before what passed"


def test_the_manifest_keeps_calibration_and_report(
    options: LineOptions, images: Path, gate: tuple[Verdicts, list[tuple[str, str, Gate]]]
) -> None:
    gate[0]["int8"] = ("passed", 1)
    calibration = Calibration((images / "0.png", images / "1.png"), "max")
    _, lines = run(replace(options, precisions=("int8",), data=images, calibration=calibration))
    assert "quantize: only 2 calibration images; 200 or more are advised" in lines
    (version,) = versions(options.repository)
    assert version.manifest["calibration"] == {
        "images": 2,
        "sha256": calibration.sha256(),
        "method": "max",
        "exclude": [],
        "scan": False,
    }
    assert version.manifest["verification"]["passed"] is True
    assert gate[1][0][2] == Gate.for_precision("int8")


def test_the_embedded_server_tries_out_another_target(
    options: LineOptions, images: Path, gate: tuple[Verdicts, list[tuple[str, str, Gate]]]
) -> None:
    """It has no backend for ONNX Runtime; the same file runs there in the Python backend."""
    gate[0]["fp32"] = ("passed", 1)
    run(replace(options, data=images, target="onnxruntime"))
    assert gate[1][0][1] == "onnxruntime-python"
    (version,) = versions(options.repository)
    assert version.manifest["target"] == "onnxruntime"


def test_old_versions_go_except_the_one_that_is_served(options: LineOptions) -> None:
    _, lines = run(replace(options, precisions=("fp32", "fp16", "bf16"), keep=1))
    assert published(options) == {"fp32": "1*", "bf16": "3"}
    assert lines[-1] == "publish: removed the old version 2"


@pytest.mark.usefixtures("rtx")
def test_plans_for_a_gpu_that_is_not_here(options: LineOptions, images: Path) -> None:
    """TensorRT for RTX builds without a GPU; what cannot be run here is published unverified, and says so."""
    calibration = Calibration((images / "0.png",), "max")
    given = replace(options, precisions=("fp32", "fp16", "int8"), target="tensorrt-rtx", calibration=calibration)
    _, lines = run(given)
    assert sum(line.startswith("engine: tensorrt-rtx builds ") for line in lines) == 3
    assert [version.manifest["precision"] for version in versions(options.repository)] == ["fp32", "fp16", "int8"]
    for version in versions(options.repository):
        assert version.manifest["engine"]["plan_bytes"] == (version.directory / "model.plan").stat().st_size
        assert version.manifest["verification"] is None
    _, lines = run(given)
    assert sum(line.endswith("(built before)") for line in lines) == 3
    assert not any(" builds " in line for line in lines)


@pytest.fixture
def rtx() -> None:
    pytest.importorskip("tensorrt_rtx_libs", exc_type=ImportError)


# --- What cannot be built ---------------------------------------------------------------------------------------------


def cut_short(directory: Path) -> Path:
    path = directory / "cut.onnx"
    path.write_bytes(DEMO.read_bytes()[:100_000])
    return path


def text_file(directory: Path) -> Path:
    path = directory / "words.onnx"
    path.write_text("not a model")
    return path


def classifier(directory: Path) -> Path:
    return conv_model(directory / "classifier.onnx", "output0 = GlobalAveragePool (cells)", "N, 7, 1, 1", 7)


def refused(options: LineOptions, sentence: str) -> None:
    """Check that the line refuses with one sentence, publishes nothing and leaves nothing half-written."""
    with pytest.raises(TriptychError, match=sentence) as caught:
        run(options)
    assert len(str(caught.value).splitlines()) == 1
    assert versions(options.repository) == []
    assert [path.name for path in options.cache.rglob(".*")] == []


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        pytest.param(text_file, "is not a whole ONNX model", id="wrong file"),
        pytest.param(cut_short, "is not a whole ONNX model", id="cut short"),
        pytest.param(classifier, "a feature map that nothing has decoded", id="another task"),
        pytest.param(lambda directory: directory / "none.onnx", "there is no file", id="no file"),
    ],
)
def test_a_source_that_cannot_be_built(
    options: LineOptions, tmp_path: Path, make: Callable[[Path], Path], sentence: str
) -> None:
    refused(replace(options, model=make(tmp_path)), sentence)


def test_no_model_repository(options: LineOptions, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"there is no model repository .*nowhere; name it with --model-repository"):
        Line(replace(options, repository=tmp_path / "nowhere"), print)


def test_int8_without_calibration_images(options: LineOptions) -> None:
    refused(replace(options, precisions=("int8",)), "needs images to calibrate")


def test_labels_that_fit_no_image(options: LineOptions, tmp_path: Path) -> None:
    labels = {
        "images": [{"id": 1, "file_name": "elsewhere.jpg", "width": 640, "height": 640}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0}],
        "categories": [{"id": 1, "name": "class 0"}],
    }
    (tmp_path / "instances.json").write_text(json.dumps(labels))
    refused(replace(options, data=tmp_path / "instances.json"), r"elsewhere\.jpg")


@pytest.mark.parametrize("target", ["tensorrt", "tensorrt-python"])
def test_a_target_that_needs_a_gpu(options: LineOptions, monkeypatch: pytest.MonkeyPatch, target: TargetName) -> None:
    monkeypatch.setattr(line_module, "nvidia_gpus", tuple)
    refused(replace(options, target=target), f"--target {target} needs an NVIDIA GPU")


def test_a_target_that_this_triton_lacks(options: LineOptions) -> None:
    said: list[str] = []
    Line(replace(options, target="onnxruntime"), said.append)
    assert "the Triton from pip has no ONNX Runtime backend" in said[0]


def test_a_target_that_needs_what_is_not_installed(options: LineOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_module, "nvidia_gpus", lambda: (Gpu("NVIDIA L4", "8.9", "560"),))
    try:
        import tensorrt  # noqa: F401
    except ImportError:
        refused(replace(options, target="tensorrt"), r"tensorrt is not installed .* run `pip install")
    else:
        pytest.skip("TensorRT is installed here")
