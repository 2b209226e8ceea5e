"""What the stages count, with a stand-in for Triton's metrics; `tests/live/test_metrics.py` has the real one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from support.images import PNG
from triptych.contract import DetectorSpec, Truncated, names_id
from triptych.files import sha256
from triptych.serving.stages import exporter, observers
from triptych.serving.stages.exporter import Exporter, Family
from triptych.serving.stages.observers import OTHER, PostprocessObserver, PreprocessObserver
from triptych.vision.boxes import Detected
from triptych_build.adapt.heads import Normalization
from triptych_build.adapt.onnx_file import Adapted
from triptych_build.publish.artifact import Artifact
from triptych_build.publish.config_pbtxt import config_text
from triptych_build.publish.target import InstanceGroup

Labels = dict[str, str]


class Backend:
    """Stands in for `triton_python_backend_utils`: holds the values, and fails as Triton does on a wrong use."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, ...], float] = {}
        self.last: dict[tuple[str, ...], float] = {}
        backend = self

        class MetricFamily:
            COUNTER, GAUGE = "counter", "gauge"

            def __init__(self, *, name: str, description: str, kind: str) -> None:
                assert description
                self.name = name

            def Metric(self, *, labels: Labels) -> Metric:  # noqa: N802  # as Triton calls it
                assert labels.pop("process") == str(os.getpid())
                return Metric((self.name, *labels.values()))

        class Metric:
            def __init__(self, key: tuple[str, ...]) -> None:
                assert key not in backend.values, "Triton would give the same metric twice"
                self.key = key
                backend.values[key] = 0

            def increment(self, amount: float) -> None:
                backend.values[self.key] += amount

            def set(self, value: float) -> None:
                backend.values[self.key] = value

            def __del__(self) -> None:
                backend.last[self.key] = backend.values.pop(self.key)

        self.MetricFamily = MetricFamily

    def final(self, name: str, *labels: str) -> float:
        """The last value of a metric that was taken back."""
        key = (name, *labels)
        return self.last[key]


@pytest.fixture
def backend() -> Backend:
    return Backend()


def detected(*images: list[int], truncated: int = 0) -> Detected:
    rows = 8
    labels = np.zeros((len(images), rows), np.int32)
    for row, image in enumerate(images):
        labels[row, : len(image)] = image
    counts = np.array([[len(image)] for image in images], np.int32)
    cut = np.full((len(images), 1), truncated, np.int32)
    return Detected(
        np.zeros((len(images), rows, 4), np.float32), np.zeros((len(images), rows), np.float32), labels, counts, cut
    )


def postprocess(backend: Backend, names: tuple[str, ...], version: Path) -> PostprocessObserver:
    return PostprocessObserver(backend, DetectorSpec(64, 64, names), version)


def test_preprocess_counts_images_bytes_and_faults(backend: Backend) -> None:
    counted = PreprocessObserver(backend)
    counted.images([PNG, b"bad"])
    counted.fault("7", "damaged", "it is bad")
    counted.fault("7", "pixels", "it is bad")
    counted.fault("7", "crash", "it is bad")
    counted.close()
    assert backend.final("triptych_images_total") == 2
    assert backend.final("triptych_encoded_bytes_total") == len(PNG) + 3
    assert backend.final("triptych_images_unreadable_total", "damaged") == 1
    assert backend.final("triptych_images_refused_total", "pixels") == 1
    assert backend.final("triptych_decoder_deaths_total", "crash") == 1
    # Prometheus sees no increase in a series that begins with 1.
    assert backend.final("triptych_images_refused_total", "decode_time") == 0
    assert backend.final("triptych_decoder_deaths_total", "time") == 0


def test_a_class_of_another_version_is_not_taken_for_ours(backend: Backend, tmp_path: Path) -> None:
    counted = postprocess(backend, ("cat", "dog"), tmp_path)
    ours, others = names_id(("cat", "dog")), names_id(("car", "bus"))
    counted.answers(detected([0, 0, 1], [1]), [ours, others])
    counted.answers(detected([5]), [ours])
    counted.close()
    assert backend.final("triptych_detections_total", "cat") == 2
    assert backend.final("triptych_detections_total", "dog") == 1
    assert backend.final("triptych_detections_total", OTHER) == 2
    assert backend.final("triptych_images_answered_total") == 3


def test_the_number_of_series_has_a_limit(backend: Backend, tmp_path: Path) -> None:
    names = tuple(f"class {number}" for number in range(observers.MAX_CLASSES + 5))
    counted = postprocess(backend, names, tmp_path)
    for label in range(len(names)):
        counted.answers(detected([label]), [names_id(names)])
    counted.close()
    classes = [key for key in backend.last if key[0] == "triptych_detections_total"]
    assert len(classes) == observers.MAX_CLASSES + 1
    assert backend.final("triptych_detections_total", OTHER) == 5


def test_what_cut_an_answer_off(backend: Backend, tmp_path: Path) -> None:
    counted = postprocess(backend, ("cat",), tmp_path)
    counted.answers(detected([0], truncated=int(Truncated.ROWS | Truncated.CANDIDATES)), [names_id(("cat",))])
    counted.close()
    assert backend.final("triptych_answers_truncated_total", "rows") == 1
    assert backend.final("triptych_answers_truncated_total", "candidates") == 1


@pytest.fixture
def version(tmp_path: Path) -> Path:
    """A published version, whose gate passed on the first day of 2026."""
    directory = tmp_path / "3"
    directory.mkdir()
    (directory / "model.onnx").write_bytes(b"weights")
    write_manifest(directory, passed=True)
    return directory


def write_manifest(directory: Path, *, passed: bool, date: str = "2026-01-01T00:00:00+00:00") -> None:
    document = {
        "precision": "fp16",
        "target": "openvino",
        "model_sha256": sha256(directory / "model.onnx"),
        "verification": {"passed": passed, "date": date},
    }
    (directory / "manifest.json").write_text(json.dumps(document))


def test_the_detector_that_is_served(backend: Backend, version: Path) -> None:
    postprocess(backend, ("cat",), version).close()
    digest = sha256(version / "model.onnx")
    assert backend.final("triptych_detector_info", "3", "fp16", "openvino", digest) == 1
    assert backend.final("triptych_engine_matches_manifest", "3", "model.onnx") == 1
    assert backend.final("triptych_gate_timestamp_seconds", "3", "model.onnx") == 1767225600
    assert backend.final("triptych_process_start_time_seconds", "postprocess") > 1767225600


def replace_engine(version: Path) -> None:
    (version / "model.onnx").write_bytes(b"others")


def remove_engine(version: Path) -> None:
    (version / "model.onnx").unlink()


def remove_manifest(version: Path) -> None:
    (version / "manifest.json").unlink()


@pytest.mark.parametrize("spoil", [replace_engine, remove_engine, remove_manifest])
def test_an_engine_that_is_not_the_published_one(
    backend: Backend, version: Path, spoil: Callable[[Path], None]
) -> None:
    spoil(version)
    postprocess(backend, ("cat",), version).close()
    assert backend.final("triptych_engine_matches_manifest", "3", "model.onnx") == 0


def test_each_of_several_plans_has_its_own_hash_and_gate(backend: Backend, version: Path) -> None:
    (version / "model.onnx").rename(version / "model.plan")
    (version / "model.plan.8.9").write_bytes(b"other")
    manifest = json.loads((version / "manifest.json").read_text())
    plan = {"model_sha256": sha256(version / "model.plan.8.9"), "verification": None}
    (version / "manifest.json").write_text(json.dumps(manifest | {"plans": {"8.9": plan}}))
    postprocess(backend, ("cat",), version).close()
    assert backend.final("triptych_engine_matches_manifest", "3", "model.plan.8.9") == 1
    assert backend.final("triptych_gate_timestamp_seconds", "3", "model.plan.8.9") == 0
    assert backend.final("triptych_gate_timestamp_seconds", "3", "model.plan") > 0


def test_after_a_switch_the_new_version_has_its_names_and_its_gauges(backend: Backend, version: Path) -> None:
    counted = postprocess(backend, ("cat",), version)
    after = version.parent / "4"
    version.rename(after)
    config = config_text(onnx_of("car"), "openvino", InstanceGroup(1), 4)
    (version.parent / "config.pbtxt").write_text(config)
    counted.answers(detected([0]), [names_id(("car",))])
    counted.close()
    assert backend.final("triptych_detections_total", "car") == 1
    assert backend.final("triptych_engine_matches_manifest", "4", "model.onnx") == 1


def test_a_configuration_that_cannot_be_read_changes_nothing(
    backend: Backend, version: Path, caplog: pytest.LogCaptureFixture
) -> None:
    counted = postprocess(backend, ("cat",), version)
    (version.parent / "config.pbtxt").write_text("nonsense")
    counted.answers(detected([0]), [names_id(("cat",))])
    counted.close()
    assert backend.final("triptych_detections_total", "cat") == 1
    assert "cannot be read" in caplog.text


def onnx_of(*names: str) -> Artifact:
    record = Adapted("raw", "source.onnx", "0" * 64, 300, Normalization(), DetectorSpec(64, 64, names))
    return Artifact(Path("adapted.onnx"), record, "fp32")


@pytest.mark.parametrize(("passed", "date"), [(False, "2026-01-01T00:00:00+00:00"), (True, "yesterday")])
def test_a_gate_that_nobody_passed(version: Path, passed: bool, date: str) -> None:
    write_manifest(version, passed=passed, date=date)
    assert observers.gate_time(json.loads((version / "manifest.json").read_text())) == 0
    assert observers.gate_time({"verification": {"passed": True}}) == observers.gate_time({}) == 0


def test_a_triton_without_metrics_does_not_end_the_stage(caplog: pytest.LogCaptureFixture) -> None:
    class Refusing:
        class MetricFamily:
            COUNTER = GAUGE = ""

            def __init__(self, **kwargs: str) -> None:
                raise RuntimeError("metrics are switched off")

    counted = PreprocessObserver(Refusing)
    counted.images([PNG])
    counted.close()
    assert "metrics are switched off" in caplog.text


def test_numbers_reach_triton_while_the_process_lives(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "PERIOD_S", 0.01)
    family = Family("some_total", "Some.")
    shown = Exporter(backend, (family,), lambda _: None)
    shown.add(family, 3)
    for _ in range(500):
        if backend.values.get(("some_total",)) == 3:
            break
        shown._stop.wait(0.01)
    assert backend.values["some_total",] == 3
    shown.close()
