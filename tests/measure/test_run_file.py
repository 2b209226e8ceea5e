"""The run file: what is written comes back, and is what its schema says."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from support import RUN_SCHEMA
from triptych.errors import ContractError
from triptych.measure import remarks as findings
from triptych.measure import run_file
from triptych.measure.attribution import Attribution, Breakdown
from triptych.measure.histogram import Histogram
from triptych.measure.intervals import Interval
from triptych.measure.run_file import ClientSide, Environment, Failure, ImageSet, Run, ServedDetector, Workload
from triptych.wire.statistics import Counters


@pytest.fixture
def run() -> Run:
    parts = {"queue": 0.5, "input": 0.25, "infer": 8.0, "output": 0.25}
    images = ImageSet.of([b"one", b"two"])
    return Run(
        started="2026-01-02T03:04:05+00:00",
        workload=Workload("poisson", 0, 12.5, "ramp", 1, ["640x480"], 2, 1.0, 10.0, images),
        environment=Environment(
            "127.0.0.1:8001", "a CPU", 2, ["a GPU"], {"python": "3.11"}, ServedDetector(3, "python", 2, 16, {"a": [1]})
        ),
        client=ClientSide(
            Histogram([10.0, 11.5, 200.0]),
            {"detect 640x480": Histogram([10.0])},
            {"ImageError": Failure(2, "no image")},
            10.25,
            1.5,
            0.125,
        ),
        server={"detector": Counters(3, 2, 3, 2, 30, 5, 5, 15, 5, Counter({1: 1, 2: 1}))},
        attribution=Attribution(
            "traces",
            3,
            {"mean": Breakdown(10.5, 0.5, 0.5, {"detector": parts}, {"track": 0.5})},
            {"detector": {"p50": 1.0}},
            ["a tail"],
        ),
        intervals=[Interval(0.0, 5.0, 2, 1, 10.0, 10.0, 11.0, 11.5, {"detector": 9.0})],
        command=["python", "loadtest"],
    )


def test_what_is_written_comes_back(run, tmp_path):
    run_file.write(tmp_path / "run.json", run)
    assert run_file.read(tmp_path / "run.json") == run
    assert list(tmp_path.iterdir()) == [tmp_path / "run.json"]


def test_a_written_run_is_what_the_schema_says(run):
    jsonschema.Draft202012Validator.check_schema(RUN_SCHEMA)
    data = json.loads(json.dumps(run_file.to_json(run)))
    data["attribution"]["percentiles_ms"]["detector"] |= {"p95": 1.0, "p99": 2.0}
    jsonschema.validate(data, RUN_SCHEMA)
    data["client"]["latencies"]["count"] = "three"
    with pytest.raises(jsonschema.ValidationError, match="three"):
        jsonschema.validate(data, RUN_SCHEMA)


def test_the_schema_names_every_field(run):
    def walk(data: object, schema: dict, at: str) -> None:
        if isinstance(data, dict) and "properties" in schema:
            open_ended = schema.get("type") == ["object", "null"] and "required" not in schema
            assert open_ended or set(data) == set(schema["properties"]) == set(schema["required"]), at
            for key, value in data.items():
                walk(value, schema["properties"][key], f"{at}.{key}")

    walk(run_file.to_json(run), RUN_SCHEMA, "run")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not a run that can be read"),
        ('{"version": 99}', "must be a run of version 2, but its version is 99"),
        ("[]", "must be a run of version 2"),
        ('{"version": 2}', "is not a whole run"),
    ],
)
def test_what_is_no_run_is_one_sentence(tmp_path, text, said):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(ContractError, match=said):
        run_file.read(tmp_path / "run.json")


def test_a_run_that_was_not_written_leaves_nothing(run, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ContractError, match="cannot be written"):
        run_file.write(tmp_path / "file" / "run.json", run)


def test_an_image_set_is_told_by_its_images_and_their_order():
    assert ImageSet.of([b"ab", b"c"]).sha256 != ImageSet.of([b"a", b"bc"]).sha256
    assert ImageSet.of([b"a", b"b"]).sha256 != ImageSet.of([b"b", b"a"]).sha256
    assert ImageSet.of([b"ab", b"c"]).total_bytes == 3


def test_what_a_run_shows_besides(run):
    assert findings.batches(run) == "the detector ran 2 times, on 1.5 images on average (1 of 1, 1 of 2)"
    assert findings.batches(replace(run, server={})) == ""
    assert findings.generator(run) == []
    busy = replace(run, client=replace(run.client, busiest=0.93))
    (sentence,) = findings.generator(busy)
    assert "used 93% of a core" in sentence
    assert "--processes 3" in sentence, "it had 2"
    assert findings.generator(replace(busy, workload=replace(run.workload, loop="video"))) == []


def test_histograms_add_up():
    one, other = [1.0 + 0.1 * i for i in range(500)], [100.0 + i for i in range(500)]
    merged = Histogram(one)
    merged.merge(Histogram.from_json(json.loads(json.dumps(Histogram(other).to_json()))))
    assert merged == Histogram(one + other)
    assert merged.count == 1000
    assert merged.mean_ms == pytest.approx(sum(one + other) / 1000)
    for percent, true in ((0, 1.0), (25, 26.0), (75, 349.5), (100, 599.0)):
        assert merged.percentile_ms(percent) == pytest.approx(true, rel=0.01)
    assert (Histogram().percentile_ms(99), Histogram().mean_ms) == (0, 0)


@pytest.mark.parametrize(
    ("change", "said"),
    [({"relative_accuracy": 0.01}, "relative accuracy"), ({"count": 7}, "says it counts 7"), ({"bins": 1}, "read")],
)
def test_a_histogram_that_is_not_ours_is_refused(change, said):
    with pytest.raises(ContractError, match=said):
        Histogram.from_json({**Histogram([1.0, 2.0]).to_json(), **change})
