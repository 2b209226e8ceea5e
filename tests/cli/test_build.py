"""`triptych build`: what the options ask of the line, and what is printed of what it made."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from support import ROOT
from support.commands import invoke
from support.detectors import raw_model
from triptych.cli import build as command
from triptych.errors import BuildError
from triptych.serving.repository import versions
from triptych_build import line
from triptych_build.adapt.adapter import Overrides
from triptych_build.built import Built
from triptych_build.line import LineOptions
from triptych_build.publish.target import InstanceGroup
from triptych_build.tensorrt.options import Options, Profile
from triptych_build.verify.latency import Latency
from triptych_build.verify.limits import Gate

run = partial(invoke, command.build)


def verified(precision: str, version: int | None, verdict: str = "passed: fine") -> Built:
    report = {
        "passed": verdict.startswith("passed"),
        "outcome": verdict.partition(":")[0],
        "verdict": verdict,
        "latency": asdict(Latency(130, 10.0, 12.5, 13.0)),
        "deployed": {"map50_95": 0.8},
    }
    return Built(precision, Path(__file__), None, report, Path(str(version)) if version else None)


def made(monkeypatch: pytest.MonkeyPatch, *built: Built) -> list[LineOptions]:
    """Have the line make these; return what it was asked for."""
    asked: list[LineOptions] = []

    class Line:
        def __init__(self, options: LineOptions, say: Any) -> None:
            asked.append(options)
            self.say = say

        def run(self) -> list[Built]:
            self.say("adapt: head raw")
            return list(built)

    monkeypatch.setattr(line, "Line", Line)
    return asked


def test_what_it_asks_for_without_options(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = made(monkeypatch, Built("fp32", Path(__file__), None, version=Path("1")))
    assert run("m.onnx", "--instances", 1, "--threads", 1).exit_code == 0
    assert asked == [LineOptions(Path("m.onnx"), gates={"fp32": Gate()})]


def test_what_it_asks_for_with_all_groups(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = made(monkeypatch)
    shutil.copyfile(ROOT / "docs" / "board.jpg", tmp_path / "board.jpg")
    words = ["--precision", "fp32,int8", "--calibration", tmp_path, "--method", "max", "--reference", "r.onnx"]
    words += ["--data", "labels", "--max-p95-ms", 30, "--target", "tensorrt", "--profile", "1,4,8", "--level", 3]
    words += ["--instances", 2, "--threads", 1, "--gpus", "0,1", "--max-queue-delay-us", 200, "--keep", 3]
    words += ["--order", "bgr", "--cache", "c", "--force", "--address", "a:1", "--model-repository", "shop"]
    result = run("m.onnx", *words)
    assert result.exit_code == 0, result.output
    (options,) = asked
    assert options.calibration is not None
    assert options.calibration.images == (tmp_path / "board.jpg",)
    assert options == LineOptions(
        Path("m.onnx"),
        precisions=("fp32", "int8"),
        reference=Path("r.onnx"),
        overrides=Overrides(order="bgr"),
        calibration=options.calibration,
        engine=Options(profiles=(Profile(1, 4, 8),), level=3),
        data=Path("labels"),
        gates={"fp32": Gate(p95_ms=30), "int8": replace(Gate.for_precision("int8"), p95_ms=30)},
        target="tensorrt",
        repository=Path("shop"),
        group=InstanceGroup(2, 1, (0, 1), 200),
        keep=3,
        address="a:1",
        force=True,
        cache=Path("c"),
    )


def test_a_row_for_each_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    made(monkeypatch, verified("fp16", 1), Built("int8", Path(__file__), None, version=Path("2")))
    result = run("m.onnx", "--precision", "fp16,int8")
    rows = [[cell.strip() for cell in row.split("│")[1:-1]] for row in result.output.splitlines() if "│" in row]
    assert [[row[0], *row[2:]] for row in rows] == [
        ["fp16", "80.00", "10.0", "passed", "1"],
        ["int8", "", "", "not verified", "2"],
    ]


def test_a_refusal_is_an_error_after_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    made(monkeypatch, verified("fp16", 1), verified("int8", None, "refused: p95 latency (ms) is 9, the limit is 5"))
    result = run("m.onnx", "--precision", "fp16,int8")
    assert isinstance(result.exception, BuildError)
    assert str(result.exception) == "int8 was not published: p95 latency (ms) is 9, the limit is 5"
    assert "refused" in result.output


def test_force_makes_it_a_remark(monkeypatch: pytest.MonkeyPatch) -> None:
    made(monkeypatch, verified("int8", 1, "refused: p95 latency (ms) is 9, the limit is 5"))
    result = run("m.onnx", "--force")
    assert result.exit_code == 0
    assert "verify: int8 was published all the same, as --force says: p95 latency (ms) is 9" in result.output


def test_json_alone_on_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    made(monkeypatch, verified("fp16", 3))
    result = run("m.onnx", "--json")
    (row,) = json.loads(result.stdout)
    assert (row["precision"], row["version"], row["map50_95"], row["verdict"]) == ("fp16", 3, 80.0, "passed: fine")
    assert (row["latency"]["p50_ms"], row["latency"]["p95_at_most_ms"]) == (10.0, 13.0)
    assert result.stderr == "adapt: head raw\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--precision", "fp99"], "there is no precision 'fp99'; choose from fp32, fp16, bf16, int8"),
        (["--precision", ""], "expected words with commas between them"),
        (["--target", "abacus"], "--target"),
        (["--target", "tensorrt-rtx", "--level", "3"], "--level means nothing to TensorRT for RTX"),
        (["--size", "big"], "expected WIDTHxHEIGHT"),
        (["--mean", "1,2"], "expected three numbers"),
        (["--keep", "0"], "--keep"),
    ],
)
def test_a_wrong_command_line(monkeypatch: pytest.MonkeyPatch, words: list[str], message: str) -> None:
    asked = made(monkeypatch)
    result = run("m.onnx", *words)
    assert result.exit_code == 2
    assert message in result.output
    assert not asked


# --- The doors --------------------------------------------------------------------------------------------------------


def build(*words: object, shell: str = "true") -> subprocess.CompletedProcess[str]:
    """Run `python build WORDS` in a shell."""
    command = ["bash", "-c", f'{shell}; exec "$@"', "bash", sys.executable, ROOT / "build", *words]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)


def test_python_build_is_triptych_build(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    words = ["--model-repository", tmp_path / "shop", "--cache", tmp_path / "cache", "--json"]
    done = build(raw_model(tmp_path / "raw.onnx"), *words)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["version"] == 1


@pytest.mark.parametrize("blocks", [100, 3000], ids=["at once", "in the middle"])
def test_a_disk_that_takes_no_more(tmp_path: Path, blocks: int) -> None:
    """A limit on the size of files refuses a write as a full disk does."""
    (tmp_path / "shop").mkdir()
    words = ["--model-repository", tmp_path / "shop", "--cache", tmp_path / "cache"]
    done = build(ROOT / "demo" / "pcb.onnx", *words, shell=f"ulimit -f {blocks}")
    assert done.returncode == 1, done.stdout
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert done.stderr.startswith("error: ")
    assert "File too large" in done.stderr
    assert versions(tmp_path / "shop") == []
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
