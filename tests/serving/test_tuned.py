"""What `triptych tune` found is served on the machine and with the detector that it was measured for, not elsewhere."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from support import ROOT
from triptych.contract import STAGES
from triptych.machine import Gpu
from triptych.serving import fitting as fitting_module
from triptych.serving import tuned as module
from triptych.serving.fitting import Fitting
from triptych.serving.tuned import FILE, Place, Settings, Tuned, read_tuned

ON_CPU = {
    "threads": '{ key: "threads" value { string_value: "1" } }',
    "cores": '{ key: "chosen_for_cores" value { string_value: "1" } }',
}
CPU_DETECTOR = f"""
backend: "python" max_batch_size: 16
version_policy {{ specific {{ versions: 1 }} }}
instance_group {{ count: 1 kind: KIND_CPU }}
parameters {ON_CPU["threads"]} parameters {ON_CPU["cores"]}
dynamic_batching {{ preferred_batch_size: [1] }}
"""
GPU_DETECTOR = """
backend: "python" max_batch_size: 16
version_policy { specific { versions: 1 } }
instance_group { count: 2 kind: KIND_GPU }
dynamic_batching { max_queue_delay_microseconds: 100 }
"""
CORES = 16
TUNED = Settings(preprocess=5, detector=6, postprocess=3, threads=2, batch=1, delay_us=0)
MakeRepository = Callable[[str], Path]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeRepository:
    """Make a model repository with such a detector, on a machine of 16 cores."""
    monkeypatch.setattr(module, "available_cores", lambda: CORES)
    monkeypatch.setattr(fitting_module, "available_cores", lambda: CORES)
    monkeypatch.setattr(module, "nvidia_gpus", lambda: ())

    def make_one(detector: str) -> Path:
        repository = tmp_path / "models"
        shutil.copytree(ROOT / "model_repository", repository, ignore=shutil.ignore_patterns("detector", "__pycache__"))
        (repository / "detector" / "1").mkdir(parents=True)
        (repository / "detector" / "config.pbtxt").write_text(detector)
        (repository / "detector" / "1" / "manifest.json").write_text('{"target": "openvino", "model_sha256": "aa"}')
        return repository

    return make_one


def write(repository: Path, settings: Settings = TUNED, **place: Any) -> None:
    """Write what was tuned, here unless `place` says otherwise, as a part of more."""
    tuned = Tuned(settings, replace(Place.here(repository), **place), "2026-11-26T10:00:00+00:00")
    (repository / FILE).write_text(json.dumps({"tries": [], "tuned": asdict(tuned)}))


def served(fitting: Fitting) -> dict[str, int]:
    return {stage.name: fitting.config(stage.name).instance_group[0].count for stage in STAGES}


def test_what_was_tuned_wins_over_the_defaults(make: MakeRepository) -> None:
    repository = make(CPU_DETECTOR)
    assert served(Fitting(repository)) == {"preprocess": 8, "detector": 8, "postprocess": 2}
    write(repository)
    fitting = Fitting(repository)
    assert served(fitting) == {"preprocess": 5, "detector": 6, "postprocess": 3}
    assert fitting.decisions == {
        "preprocess": "as tuned on 2026-11-26",
        "detector": "2 threads each, as tuned on 2026-11-26",
        "postprocess": "as tuned on 2026-11-26",
    }
    assert fitting.settings() == TUNED
    assert fitting.remark == ""
    detector = fitting.config("detector")
    assert detector.parameters["threads"].string_value == "2"
    assert detector.parameters["chosen_for_cores"].string_value == "16", "for the next version, which nobody has tuned"
    assert detector.dynamic_batching.default_queue_policy.max_queue_size == 12 * 16, "of the cores that it uses"


def test_what_is_asked_for_wins_over_what_was_tuned(make: MakeRepository) -> None:
    repository = make(CPU_DETECTOR)
    write(repository)
    fitting = Fitting(repository, {"preprocess": 1})
    assert served(fitting) == {"preprocess": 1, "detector": 6, "postprocess": 3}
    assert fitting.decisions["preprocess"] == "as asked for"
    asked = Fitting(repository, settings=replace(TUNED, preprocess=2))
    assert served(asked)["preprocess"] == 2
    assert asked.decisions["detector"] == "2 threads each, as asked for"


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ({"cores": 2}, "it is for 2 cores of .*, and this is 16 cores of "),
        ({"cpu": "another CPU"}, "it is for 16 cores of another CPU, and this is"),
        ({"gpus": ["NVIDIA H200"]}, "it is for 16 cores of .* with NVIDIA H200, and this is"),
        ({"detector": "openvino bb"}, "it is for another detector than the one that is served"),
    ],
)
def test_what_was_tuned_elsewhere_is_not_applied_and_says_so(
    make: MakeRepository, place: dict[str, Any], reason: str
) -> None:
    repository = make(CPU_DETECTOR)
    write(repository, **place)
    fitting = Fitting(repository)
    assert served(fitting) == {"preprocess": 8, "detector": 8, "postprocess": 2}
    assert fitting.decisions["preprocess"] == "decided for 16 cores"
    assert re.search(reason, fitting.remark)
    assert fitting.remark.endswith("`triptych tune` measures anew")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "cannot be read"),
        ("{}", "names no settings"),
        ('{"tuned": null}', "names no settings"),
        ('{"tuned": {"settings": {"preprocess": 0}}}', "cannot be read"),
    ],
)
def test_a_file_that_is_damaged_is_not_applied(make: MakeRepository, text: str, reason: str) -> None:
    repository = make(CPU_DETECTOR)
    (repository / FILE).write_text(text)
    fitting = Fitting(repository)
    assert reason in fitting.remark
    assert served(fitting)["detector"] == 8


def test_counts_are_above_zero(make: MakeRepository) -> None:
    repository = make(CPU_DETECTOR)
    write(repository, replace(TUNED, detector=0))
    tuned, remark = read_tuned(repository)
    assert tuned is None
    assert "Expected `int` >= 1 - at `$.tuned.settings.detector`" in remark


def test_a_version_without_a_manifest_is_known_by_its_number(make: MakeRepository) -> None:
    repository = make(CPU_DETECTOR)
    (repository / "detector" / "1" / "manifest.json").unlink()
    assert Place.here(repository).detector == "version 1"
    (repository / "detector" / "config.pbtxt").unlink()
    assert Place.here(repository).detector == "none"


def test_the_place_names_the_gpus(make: MakeRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = make(GPU_DETECTOR)
    monkeypatch.setattr(module, "nvidia_gpus", lambda: (Gpu("NVIDIA H200"),))
    assert Place.here(repository).machine.endswith(" with NVIDIA H200")
    assert Place.here(repository).detector == "openvino aa"


def test_a_detector_on_a_gpu(make: MakeRepository) -> None:
    repository = make(GPU_DETECTOR)
    start = Fitting(repository).settings()
    assert start == Settings(preprocess=12, detector=2, postprocess=4, threads=None, batch=16, delay_us=100)
    assert str(start) == "preprocess 12, detector 2, postprocess 4, batches of 16, delay 100 µs"
    wanted = replace(start, detector=4, batch=8, delay_us=500)
    fitting = Fitting(repository, settings=wanted)
    detector = fitting.config("detector")
    assert list(detector.dynamic_batching.preferred_batch_size) == [8]
    assert detector.dynamic_batching.max_queue_delay_microseconds == 500
    assert fitting.settings() == wanted
    assert fitting.decisions["detector"] == "as asked for"


@pytest.mark.parametrize("batch", [1, 2, 16])
@pytest.mark.parametrize("detector", [CPU_DETECTOR, GPU_DETECTOR])
def test_settings_are_read_as_they_were_applied(make: MakeRepository, detector: str, batch: int) -> None:
    repository = make(detector)
    wanted = replace(Fitting(repository).settings(), detector=3, batch=batch, delay_us=250)
    assert Fitting(repository, settings=wanted).settings() == wanted


def test_a_detector_that_gathers_no_batches_goes_on_getting_requests_one_by_one() -> None:
    config = text_format.Parse(GPU_DETECTOR, model_config_pb2.ModelConfig(name="detector"))
    replace(TUNED, batch=1, threads=None).apply(config, CORES)
    assert list(config.dynamic_batching.preferred_batch_size) == [1]
    assert config.dynamic_batching.max_queue_delay_microseconds == 0
    assert "threads" not in config.parameters
