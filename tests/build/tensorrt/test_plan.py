"""The record next to a plan: written, read back, missing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from support.plans import built_by
from triptych.errors import BuildError
from triptych_build.tensorrt.options import Profile
from triptych_build.tensorrt.plan import Engine, read_record


@pytest.mark.parametrize("record", [None, "not json", "[]", '{"adapted": {}}', '{"engine": {}, "layers": []}'])
def test_a_plan_without_a_record(tmp_path: Path, record: str | None) -> None:
    (tmp_path / "model.plan").write_bytes(b"plan")
    if record is not None:
        (tmp_path / "model.plan.json").write_text(record)
    with pytest.raises(BuildError, match=r"has no record model\.plan\.json that can be read .*`triptych engine`"):
        read_record(tmp_path / "model.plan")


def test_a_record_survives_json() -> None:
    record = replace(built_by("tensorrt", Profile(1, 1, 4), Profile(1, 8, 16)), layers={"fp16": 3})
    assert Engine.from_dict(json.loads(json.dumps(record.to_dict()))) == record
