"""Sources that are not ONNX. Ultralytics cannot be had here (AGPL-3.0): a script stands for its `yolo` command."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from support.detectors import CLASSES, raw_model
from support.graphs import record_of
from support.ultralytics import METADATA, PLAN, make_checkpoint, make_engine
from triptych.errors import BuildError
from triptych_build import ultralytics
from triptych_build.adapt.adapter import Overrides, adapt
from triptych_build.adapt.names import read_names
from triptych_build.ultralytics import as_onnx, export, exporter, split_engine, write_plan


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    return make_engine(tmp_path)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path)


@pytest.fixture
def yolo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for `yolo`: keeps its arguments, and writes an ONNX next to the model as Ultralytics does."""
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    raw_model(tmp_path / "exported.onnx")
    return script(
        programs / "yolo",
        f"""echo "$@" > {tmp_path}/arguments
            for word in "$@"; do case "$word" in model=*) model="${{word#model=}}";; esac; done
            test -s "$model" && cp {tmp_path}/exported.onnx "${{model%.pt}}.onnx" """,
    )


def script(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


# --- as_onnx


def test_an_onnx_is_taken_as_it_is(tmp_path: Path) -> None:
    path = raw_model(tmp_path / "source.ONNX")
    assert as_onnx(path, tmp_path / "out") == path
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_is_exported_by_the_users_own_tool(tmp_path: Path, checkpoint: Path, yolo: Path) -> None:
    out = as_onnx(checkpoint, tmp_path / "out", (640, 480))
    assert out == tmp_path / "out" / "best.onnx"
    assert out.read_bytes() == (tmp_path / "exported.onnx").read_bytes()
    assert list(out.parent.iterdir()) == [out]
    assert sorted(path.name for path in tmp_path.glob("best*")) == ["best.pt"], "nothing next to the checkpoint"
    words = (tmp_path / "arguments").read_text().split()
    assert words[0] == "export"
    assert {"format=onnx", "dynamic=True", "imgsz=480,640"} < set(words)
    assert exporter() == str(yolo)
    assert "ultralytics" not in sys.modules


def test_without_a_size_the_checkpoint_keeps_its_own(tmp_path: Path, checkpoint: Path, yolo: Path) -> None:
    as_onnx(checkpoint, tmp_path)
    assert "imgsz" not in (tmp_path / "arguments").read_text()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "printf 'loading\\n\\033[31mValueError: \\033[0mno such layer\\n\\n' >&2; exit 1",
            "ValueError: no such layer$",
        ),
        ("echo done", "did not export .*best.pt: done$"),
        ("exit 3", "it printed nothing$"),
    ],
)
def test_a_failed_export_is_its_last_line(
    tmp_path: Path, checkpoint: Path, yolo: Path, body: str, message: str
) -> None:
    script(yolo, body)
    with pytest.raises(BuildError, match=message) as caught:
        as_onnx(checkpoint, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_an_export_that_never_ends_is_given_up(
    tmp_path: Path, checkpoint: Path, yolo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(yolo, "exec sleep 60")
    monkeypatch.setattr(ultralytics, "EXPORT_TIMEOUT_S", 0.2)
    with pytest.raises(BuildError, match=r"did not export .*best\.pt in 0 s"):
        as_onnx(checkpoint, tmp_path / "out")


def test_a_command_that_cannot_be_run_is_one_sentence(tmp_path: Path, checkpoint: Path, yolo: Path) -> None:
    yolo.write_text("#!/no/such/interpreter\n")
    with pytest.raises(BuildError, match="yolo cannot be run: No such file"):
        as_onnx(checkpoint, tmp_path / "out")


def test_without_ultralytics_the_error_says_how_to_get_it(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError, match=r"\(AGPL-3.0\) in an environment of its own.* `python -m venv"):
        as_onnx(checkpoint, tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.pt", None, "there is no file"),
        ("best.pt", b"<html>404</html>", "is not a PyTorch checkpoint, or is cut short"),
        ("best.pt", b"", "is not a PyTorch checkpoint, or is cut short"),
        ("best.engine", PLAN, r"build from the .pt or .onnx .*--names best.engine"),
        ("model.plan", PLAN, "a finished engine"),
        ("best.tflite", b"?", "an .onnx or an Ultralytics .pt, but got best.tflite"),
        ("best", b"?", "but got best; export it to ONNX"),
    ],
)
def test_other_files_are_refused_in_words(
    tmp_path: Path, yolo: Path, name: str, content: bytes | None, message: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BuildError, match=message):
        as_onnx(path, tmp_path / "out")


def test_an_export_goes_where_it_is_asked_to(tmp_path: Path, checkpoint: Path, yolo: Path) -> None:
    export(checkpoint, tmp_path / "out" / "model.onnx")
    assert (tmp_path / "out" / "model.onnx").read_bytes() == (tmp_path / "exported.onnx").read_bytes()


# --- engines


def test_an_engine_is_split_behind_its_header(engine: Path) -> None:
    metadata, offset = split_engine(engine)
    assert metadata == METADATA
    assert engine.read_bytes()[offset:] == PLAN


def test_a_bare_plan_has_no_header(tmp_path: Path) -> None:
    path = tmp_path / "model.plan"
    path.write_bytes(PLAN)
    assert split_engine(path) == ({}, 0)
    with pytest.raises(BuildError, match="is a bare plan already, or no engine"):
        write_plan(path, tmp_path / "out.plan")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not an engine: it has 0 bytes"),
        (b"\x01\x02", "is not an engine: it has 2 bytes"),
        ((500).to_bytes(4, "little") + b'{"names": ', "is cut short"),
        ((2).to_bytes(4, "little") + b"{}", "is cut short"),
        ((8).to_bytes(4, "little") + b'{"names}' + PLAN, "a header that is not JSON"),
        ((8).to_bytes(4, "little") + b'{"a":"\xff"' + PLAN, "a header that is not JSON"),
    ],
)
def test_a_damaged_header_is_one_sentence(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "best.engine"
    path.write_bytes(content)
    with pytest.raises(BuildError, match=message):
        split_engine(path)


@pytest.mark.parametrize("length", [0, 2, 1_000_001, 2**32 - 1])
def test_a_length_that_no_header_has_is_taken_for_the_plans_own(tmp_path: Path, length: int) -> None:
    path = tmp_path / "best.engine"
    path.write_bytes(length.to_bytes(4, "little") + PLAN)
    assert split_engine(path) == ({}, 0)


def test_a_missing_engine_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="cannot be read: No such file"):
        split_engine(tmp_path / "gone.engine")


def test_names_of_an_engine_are_in_the_order_of_their_ids(engine: Path) -> None:
    assert read_names(engine) == ["open", "short", "burr"]


@pytest.mark.parametrize("names", [None, {}, [], "open", {"first": "open"}])
def test_an_engine_without_names_says_so(tmp_path: Path, names: object) -> None:
    path = tmp_path / "best.engine"
    header = json.dumps({} if names is None else {"names": names}).encode()
    path.write_bytes(len(header).to_bytes(4, "little") + header + PLAN)
    with pytest.raises(BuildError, match="has no class names in its header"):
        read_names(path)


def test_names_of_an_engine_name_the_classes_of_its_onnx(tmp_path: Path) -> None:
    header = json.dumps({"names": {str(number): f"part {number}" for number in range(CLASSES)}}).encode()
    path = tmp_path / "best.engine"
    path.write_bytes(len(header).to_bytes(4, "little") + header + PLAN)
    names = read_names(path)
    record = record_of(adapt(raw_model(tmp_path / "source.onnx"), Overrides(names=names)))
    assert record.spec.class_names == tuple(f"part {number}" for number in range(CLASSES))
