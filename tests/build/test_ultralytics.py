"""Sources that are not ONNX. Ultralytics cannot be had here (AGPL-3.0): a script stands for its `yolo` command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import onnx
import pytest

from support import ROOT
from support.detectors import CLASSES, raw_model
from triptych.errors import BuildError
from triptych_build import ultralytics as source
from triptych_build.adapt import adapter as adapt
from triptych_build.adapt.adapter import Overrides

PLAN = b"ftrt" + bytes(range(256)) * 20
METADATA = {
    "description": "a model",
    "date": "2026-11-01T10:00:00",
    "task": "detect",
    "batch": 8,
    "imgsz": [480, 640],
    "names": {"0": "open", "1": "short", "10": "burr"},
}


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    path = tmp_path / "best.engine"
    header = json.dumps(METADATA).encode()
    path.write_bytes(len(header).to_bytes(4, "little") + header + PLAN)
    return path


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "best.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("best/data.pkl", b"weights")
    return path


@pytest.fixture
def yolo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for `yolo`: keeps its arguments, and writes an ONNX beside the model as Ultralytics does."""
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


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "build" / "source.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


# --- as_onnx


def test_an_onnx_is_taken_as_it_is(tmp_path):
    path = raw_model(tmp_path / "source.ONNX")
    assert source.as_onnx(path, tmp_path / "out") == path
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_is_exported_by_the_users_own_tool(tmp_path, checkpoint, yolo, capsys):
    out = source.as_onnx(checkpoint, tmp_path / "out", (640, 480))
    assert out == tmp_path / "out" / "best.onnx"
    assert out.read_bytes() == (tmp_path / "exported.onnx").read_bytes()
    assert list(out.parent.iterdir()) == [out]
    assert sorted(path.name for path in tmp_path.glob("best*")) == ["best.pt"], "nothing beside the checkpoint"
    words = (tmp_path / "arguments").read_text().split()
    assert words[0] == "export"
    assert {"format=onnx", "dynamic=True", "imgsz=480,640"} < set(words)
    assert f"your own Ultralytics ({yolo})" in capsys.readouterr().out
    assert "ultralytics" not in sys.modules


def test_without_a_size_the_checkpoint_keeps_its_own(tmp_path, checkpoint, yolo):
    source.as_onnx(checkpoint, tmp_path)
    assert "imgsz" not in (tmp_path / "arguments").read_text()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "printf 'loading\\n\\033[31mValueError: \\033[0mno such layer\\n\\n' >&2; exit 1",
            "ValueError: no such layer$",
        ),
        ("echo done", "did not export .*best.pt: done$"),
        ("exit 3", "it said nothing$"),
    ],
)
def test_a_failed_export_is_its_last_line(tmp_path, checkpoint, yolo, body, message):
    script(yolo, body)
    with pytest.raises(BuildError, match=message) as caught:
        source.as_onnx(checkpoint, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_an_export_that_never_ends_is_given_up(tmp_path, checkpoint, yolo, monkeypatch):
    script(yolo, "exec sleep 60")
    monkeypatch.setattr(source, "EXPORT_TIMEOUT_S", 0.2)
    with pytest.raises(BuildError, match=r"did not export .*best\.pt in 0 s"):
        source.as_onnx(checkpoint, tmp_path / "out")


def test_a_command_that_cannot_be_run_is_one_sentence(tmp_path, checkpoint, yolo):
    yolo.write_text("#!/no/such/interpreter\n")
    with pytest.raises(BuildError, match="yolo cannot be run: No such file"):
        source.as_onnx(checkpoint, tmp_path / "out")


def test_without_ultralytics_it_is_said_how_to_get_it(tmp_path, checkpoint, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError, match=r"install it yourself with `pip install ultralytics` \(AGPL-3.0\), or export"):
        source.as_onnx(checkpoint, tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.pt", None, "there is no file"),
        ("best.pt", b"<html>404</html>", "is no PyTorch checkpoint, or is cut short"),
        ("best.pt", b"", "is no PyTorch checkpoint, or is cut short"),
        ("best.engine", PLAN, r"build from the .pt or .onnx .*--names best.engine"),
        ("model.plan", PLAN, "a finished engine"),
        ("best.tflite", b"?", "an .onnx or an Ultralytics .pt, but got best.tflite"),
        ("best", b"?", "but got best; export it to ONNX"),
    ],
)
def test_other_files_are_refused_in_words(tmp_path, yolo, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BuildError, match=message):
        source.as_onnx(path, tmp_path / "out")


def test_a_dynamic_export_takes_its_size_from_the_metadata(tmp_path):
    path = raw_model(tmp_path / "source.onnx")
    model = onnx.load(path)
    for dim, name in zip(model.graph.input[0].type.tensor_type.shape.dim[2:], ("height", "width"), strict=True):
        dim.dim_param = name
    model.graph.output[0].type.tensor_type.shape.dim[2].dim_param = "anchors"
    entry = model.metadata_props.add()
    entry.key, entry.value = "imgsz", "[64, 96]"
    onnx.save(model, path)
    spec = adapt.read_adapted(adapt.adapt(path)).spec
    assert (spec.width, spec.height) == (96, 64)
    spec = adapt.read_adapted(adapt.adapt(path, Overrides(size=(64, 64)))).spec
    assert (spec.width, spec.height) == (64, 64)


# --- engines


def test_an_engine_is_split_behind_its_header(engine):
    metadata, offset = source.split_engine(engine)
    assert metadata == METADATA
    assert engine.read_bytes()[offset:] == PLAN


def test_a_bare_plan_has_no_header(tmp_path):
    path = tmp_path / "model.plan"
    path.write_bytes(PLAN)
    assert source.split_engine(path) == ({}, 0)
    with pytest.raises(BuildError, match="is a bare plan already, or no engine"):
        source.write_plan(path, tmp_path / "out.plan")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no engine: it has 0 bytes"),
        (b"\x01\x02", "is no engine: it has 2 bytes"),
        ((500).to_bytes(4, "little") + b'{"names": ', "is cut short"),
        ((2).to_bytes(4, "little") + b"{}", "is cut short"),
        ((8).to_bytes(4, "little") + b'{"names}' + PLAN, "a header that is not JSON"),
        ((8).to_bytes(4, "little") + b'{"a":"\xff"' + PLAN, "a header that is not JSON"),
    ],
)
def test_a_damaged_header_is_one_sentence(tmp_path, content, message):
    path = tmp_path / "best.engine"
    path.write_bytes(content)
    with pytest.raises(BuildError, match=message):
        source.split_engine(path)


@pytest.mark.parametrize("length", [0, 2, 1_000_001, 2**32 - 1])
def test_a_length_that_no_header_has_is_taken_for_the_plans_own(tmp_path, length):
    path = tmp_path / "best.engine"
    path.write_bytes(length.to_bytes(4, "little") + PLAN)
    assert source.split_engine(path) == ({}, 0)


def test_a_missing_engine_is_one_sentence(tmp_path):
    with pytest.raises(BuildError, match="cannot be read: No such file"):
        source.split_engine(tmp_path / "gone.engine")


def test_names_of_an_engine_are_in_the_order_of_their_ids(engine):
    assert adapt.read_names(engine) == ["open", "short", "burr"]


@pytest.mark.parametrize("names", [None, {}, [], "open", {"first": "open"}])
def test_an_engine_without_names_says_so(tmp_path, names):
    path = tmp_path / "best.engine"
    header = json.dumps({} if names is None else {"names": names}).encode()
    path.write_bytes(len(header).to_bytes(4, "little") + header + PLAN)
    with pytest.raises(BuildError, match="has no class names in its header"):
        adapt.read_names(path)


def test_names_in_a_file_that_is_no_text(tmp_path):
    (tmp_path / "names.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(BuildError, match=r"names\.txt is no UTF-8 text; write the class names one a line"):
        adapt.read_names(tmp_path / "names.txt")


def test_names_of_an_engine_name_the_classes_of_its_onnx(tmp_path):
    header = json.dumps({"names": {str(number): f"part {number}" for number in range(CLASSES)}}).encode()
    path = tmp_path / "best.engine"
    path.write_bytes(len(header).to_bytes(4, "little") + header + PLAN)
    names = adapt.read_names(path)
    record = adapt.read_adapted(adapt.adapt(raw_model(tmp_path / "source.onnx"), Overrides(names=names)))
    assert record.spec.class_names == tuple(f"part {number}" for number in range(CLASSES))


# --- the command line


def test_the_command_writes_the_bare_plan_and_the_names(tmp_path, engine):
    done = run(engine, "--out", tmp_path / "model.plan", "--names-out", tmp_path / "names.txt")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "model.plan").read_bytes() == PLAN
    assert (tmp_path / "names.txt").read_text() == "open\nshort\nburr\n"
    for line in ("task: detect", "imgsz: [480, 640]", "batch: 8", "date: 2026-11-01T10:00:00", "'1': 'short'"):
        assert line in done.stdout


def test_the_command_exports_a_checkpoint(tmp_path, checkpoint, yolo):
    done = run(checkpoint, "--out-dir", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "best.onnx").is_file()


def test_the_command_fails_in_one_sentence(tmp_path, engine):
    engine.write_bytes(PLAN)
    done = run(engine, "--out", tmp_path / "model.plan")
    assert done.returncode == 1
    assert "error: " in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "model.plan").exists()
