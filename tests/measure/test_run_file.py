"""The run file: what is written comes back, its schema, and files of earlier releases."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from support import ROOT
from triptych.errors import ContractError
from triptych.measure import run_file
from triptych.measure.attribution import Attribution, Breakdown
from triptych.measure.documents import to_json
from triptych.measure.footprint import Footprint, GpuFootprint, ProcessFootprint, Trend
from triptych.measure.histogram import Histogram
from triptych.measure.intervals import Interval
from triptych.measure.power.figures import Device, Gauges, Identity, Power
from triptych.measure.run_file import (
    ClientSide,
    Environment,
    Failure,
    ImageSet,
    Run,
    ServedDetector,
    VideoSide,
    Workload,
)
from triptych.measure.slope import Slope
from triptych.wire.statistics import Counters

OLD = Path(__file__).parent / "data" / "run-2.json"


@pytest.fixture
def run() -> Run:
    parts = {"queue": 0.5, "input": 0.25, "infer": 8.0, "output": 0.25}
    images = ImageSet.of([b"one", b"two"])
    trend = Trend(100.0, 101.5, 102.0, Slope(0.5, -1.0, 2.0))
    return Run(
        started="2026-01-02T03:04:05+00:00",
        workload=Workload("poisson", 0, 12.5, "ramp", 1, ["640x480"], 2, 1.0, 10.0, images, ["a.avi"]),
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
            1,
            [VideoSide(Histogram([10.0]), 2, 7, 10.25, "it is gone")],
        ),
        server={"detector": Counters(3, 2, 3, 2, 30, 5, 5, 15, 5, Counter({1: 1, 2: 1}))},
        attribution=Attribution(
            "traces",
            3,
            {"mean": Breakdown(10.5, 0.5, 0.5, {"detector": parts}, {"track": 0.5})},
            {"detector": {"p50": 1.0, "p95": 2.0, "p99": 3.0}},
        ),
        intervals=[Interval(0.0, 5.0, 2, 1, 10.0, 10.0, 11.0, 11.5, {"detector": 9.0})],
        command=["python", "loadtest"],
        footprint=Footprint(
            1.0,
            10.0,
            [ProcessFootprint("detector", "3", 12, 0.0, 10.0, trend, Trend(9, 9, 9, None), Trend(2, 2, 2, None))],
            [GpuFootprint(0, "a GPU", trend)],
        ),
        power=Power(
            10.25,
            0.1,
            0.4,
            [
                Device(
                    Identity("GPU", "a GPU", "GPU-1", "nvml", 700.0, "the whole board"),
                    4000.5,
                    40.0,
                    "",
                    [Gauges(390.5, 0.75, 2000.0, 1980.0, 2619.0, 61.0, ["power cap"])],
                ),
                Device(Identity("CPU", "package-0", "intel-rapl:0", "rapl"), None, None, "it began anew", [Gauges()]),
            ],
            ["its metrics cannot be read"],
        ),
    )


def test_what_is_written_comes_back(run: Run, tmp_path: Path) -> None:
    run_file.write(tmp_path / "run.json", run)
    assert run_file.read(tmp_path / "run.json") == run
    assert list(tmp_path.iterdir()) == [tmp_path / "run.json"]


def test_a_written_run_is_what_the_schema_says(run: Run) -> None:
    schema = run_file.FORMAT.schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    data = json.loads(json.dumps(to_json(run)))
    jsonschema.validate(data, schema)
    data["client"]["latencies"]["count"] = "three"
    with pytest.raises(jsonschema.ValidationError, match="three"):
        jsonschema.validate(data, schema)


def test_the_schema_names_and_explains_every_field(run: Run) -> None:
    schema = run_file.FORMAT.schema()

    def walk(data: Any, part: dict[str, Any], at: str) -> None:
        if "$ref" in part:
            part = schema["$defs"][part["$ref"].rpartition("/")[2]]
        for choice in part.get("anyOf", ()):
            if data is not None and choice != {"type": "null"}:
                walk(data, choice, at)
        if isinstance(data, dict) and "properties" in part:
            assert set(data) == set(part["properties"]), at
            for key, value in data.items():
                assert part["properties"][key]["description"], f"{at}.{key}"
                walk(value, part["properties"][key], f"{at}.{key}")
        for key, value in data.items() if isinstance(data, dict) and "additionalProperties" in part else ():
            walk(value, part["additionalProperties"], f"{at}.{key}")

    walk(to_json(run), schema, "run")


def test_the_schema_in_the_docs_is_that_of_the_code() -> None:
    text = (ROOT / "docs" / "run_file.schema.json").read_text()
    again = "write it again with `python -m triptych.measure.run_file > docs/run_file.schema.json`"
    assert json.loads(text) == run_file.FORMAT.schema(), again


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "is not a run that can be read"),
        ('{"version": 99}', "must be a run of version 2, but its version is 99"),
        ("[]", "must be a run of version 2"),
        (
            '{"version": 2, "client": {}}',
            r"is not a whole run: Object missing required field `latencies` - at `\$\.client`",
        ),
    ],
)
def test_what_is_no_run_is_one_sentence(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(ContractError, match=reason):
        run_file.read(tmp_path / "run.json")


@pytest.mark.parametrize(
    ("section", "field", "value", "reason"),
    [
        ("workload", "users", "many", r"Expected `int`, got `str` - at `\$\.workload\.users`"),
        ("workload", "loop", "open", r"Invalid enum value 'open' - at `\$\.workload\.loop`"),
        ("client", "latencies", {"count": 1}, r"a histogram cannot be read: .* - at `\$\.client\.latencies`"),
        ("server", "detector", {"batches": {"one": 1}}, r"Expected `int`, got `str`"),
    ],
)
def test_an_error_names_the_place(
    run: Run, tmp_path: Path, section: str, field: str, value: object, reason: str
) -> None:
    data = to_json(run)
    data[section][field] = value
    (tmp_path / "run.json").write_text(json.dumps(data))
    with pytest.raises(ContractError, match=reason):
        run_file.read(tmp_path / "run.json")


def test_a_run_that_was_not_written_leaves_nothing(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ContractError, match="cannot be written"):
        run_file.write(tmp_path / "file" / "run.json", run)


def test_a_run_of_an_earlier_release_is_read() -> None:
    run = run_file.read(OLD)
    data = json.loads(OLD.read_text())
    assert data["attribution"].pop("long_tails") == ["detector has a long tail"], "derived from the percentiles now"
    written = json.loads(json.dumps(to_json(run)))
    assert [counters.pop("versions") for counters in written["server"].values()] == [[]], "not known of this run"
    assert (written["workload"].pop("sources"), written["client"].pop("videos")) == ([], []), "of a load test"
    assert written == data
    assert run.server["detector"].batches == {1: 10, 2: 10}
    assert run.client.by_request["640x480"].count == 2


def test_percentiles_of_an_earlier_release_from_the_server_s_metrics_are_left_out(tmp_path: Path) -> None:
    data = json.loads(OLD.read_text())
    data["attribution"]["source"] = "summaries"
    (tmp_path / "run.json").write_text(json.dumps(data))
    attribution = run_file.read(tmp_path / "run.json").attribution
    assert (attribution.source, attribution.percentiles_ms) == ("statistics", {})
    assert attribution.breakdowns["mean"].total_ms > 0


def test_an_image_set_is_known_by_its_images_and_their_order() -> None:
    assert ImageSet.of([b"ab", b"c"]).sha256 != ImageSet.of([b"a", b"bc"]).sha256
    assert ImageSet.of([b"a", b"b"]).sha256 != ImageSet.of([b"b", b"a"]).sha256
    assert ImageSet.of([b"ab", b"c"]).total_bytes == 3
