"""Instances are decided where a stage is served, unless somebody has chosen them."""

from __future__ import annotations

import pytest
from tritonclient.grpc import model_config_pb2

from triptych.serving.instances import CHOSEN_FOR_CORES, default_instances, detector_instances, fit_alike, fit_instances


def config(name: str, count: int = 1, **parameters: object) -> model_config_pb2.ModelConfig:
    made = model_config_pb2.ModelConfig(name=name)
    made.instance_group.add(count=count)
    for key, value in parameters.items():
        made.parameters[key].string_value = str(value)
    return made


def detector(count: int, threads: int, cores: int | None = None) -> model_config_pb2.ModelConfig:
    """A detector of a CPU, as it was published on a machine with so many cores; by hand if they are None."""
    return config("detector", count, threads=threads, **({CHOSEN_FOR_CORES: cores} if cores else {}))


def spread(made: model_config_pb2.ModelConfig) -> tuple[int, str]:
    return made.instance_group[0].count, made.parameters["threads"].string_value


@pytest.mark.parametrize(
    ("cores", "preprocess", "postprocess"), [(1, 1, 1), (2, 1, 1), (4, 2, 1), (16, 8, 2), (64, 32, 8)]
)
def test_default_instances(cores: int, preprocess: int, postprocess: int) -> None:
    assert default_instances(cores) == {"preprocess": preprocess, "postprocess": postprocess}


@pytest.mark.parametrize(("cores", "preprocess", "postprocess"), [(1, 1, 1), (2, 1, 1), (4, 3, 1), (16, 12, 4)])
def test_a_detector_on_a_gpu_leaves_the_cores_to_the_others(cores: int, preprocess: int, postprocess: int) -> None:
    instances = default_instances(cores, detector_on_gpu=True)
    assert instances == {"preprocess": preprocess, "postprocess": postprocess}
    served = config("preprocess")
    assert fit_instances(served, 16, written=0, asked={}, detector_on_gpu=True) == "decided for 16 cores and a GPU"
    assert served.instance_group[0].count == 12


@pytest.mark.parametrize(("cores", "postprocess"), [(1, 1), (4, 1), (16, 6), (64, 24)])
def test_a_gpu_that_decodes_leaves_the_cores_to_postprocess(cores: int, postprocess: int) -> None:
    instances = default_instances(cores, detector_on_gpu=True, decodes_on_gpu=True)
    assert instances == {"preprocess": 3, "postprocess": postprocess}


@pytest.mark.parametrize(
    ("cores", "count", "threads"), [(1, 1, 1), (2, 2, 1), (6, 6, 1), (8, 8, 1), (16, 8, 2), (96, 8, 12)]
)
def test_detector_instances(cores: int, count: int, threads: int) -> None:
    assert detector_instances(cores) == (count, threads)


@pytest.mark.parametrize(
    ("written", "asked", "count", "why"),
    [
        (0, {}, 8, "decided for 16 cores"),
        (12, {}, 12, "as its config.pbtxt says"),
        (1, {}, 1, "as its config.pbtxt says"),
        (12, {"preprocess": 3}, 3, "as asked for"),
    ],
)
def test_preprocess(written: int, asked: dict[str, int], count: int, why: str) -> None:
    served = config("preprocess", max(1, written))
    assert fit_instances(served, 16, written=written, asked=asked) == why
    assert served.instance_group[0].count == count


@pytest.mark.parametrize(
    ("published", "count", "threads", "why"),
    [
        (detector(1, 1, cores=1), 2, "1", "1 thread each, decided for 2 cores"),
        (detector(8, 4, cores=32), 2, "1", "1 thread each, decided for 2 cores"),
        (detector(3, 2), 3, "2", "2 threads each, as it was published"),
        (detector(5, 1, cores=1), 5, "1", "1 thread each, as its config.pbtxt says"),
        (detector(1, 2, cores=1), 1, "2", "2 threads each, as its config.pbtxt says"),
    ],
)
def test_a_detector_on_two_cores(published: model_config_pb2.ModelConfig, count: int, threads: str, why: str) -> None:
    assert fit_instances(published, 2, written=1, asked={}) == why
    assert spread(published) == (count, threads)


def test_many_cores_share_eight_instances() -> None:
    published = detector(1, 1, cores=1)
    assert fit_instances(published, 32, written=1, asked={}) == "4 threads each, decided for 32 cores"
    assert spread(published) == (8, "4")
    assert published.parameters[CHOSEN_FOR_CORES].string_value == "32"


def test_a_detector_on_gpus_stays_as_it_is() -> None:
    published = config("detector", 1)
    assert fit_instances(published, 32, written=1, asked={}) == "as it was published"
    assert published == config("detector", 1)


def test_a_live_switch_keeps_what_was_decided_for_the_machine() -> None:
    new = detector(1, 1, cores=1)
    fit_alike(new, detector(8, 2, cores=16))
    assert spread(new) == (8, "2")
    chosen = detector(3, 1)
    fit_alike(chosen, detector(8, 2, cores=16))
    assert spread(chosen) == (3, "1")
    fit_alike(published := detector(1, 1, cores=1), chosen)
    assert spread(published) == (1, "1")
