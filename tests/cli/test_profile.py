"""`triptych profile`: files, versions and saved profiles, and what it prints and writes."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from support.commands import invoke
from support.detectors import raw_model
from support.graphs import adapted
from support.profiles import fp32, int8
from triptych.cli.console import OK, USAGE
from triptych.cli.profile import profile
from triptych.errors import BuildError, ContractError
from triptych.measure import profile as profile_file

run = partial(invoke, profile, columns=120)


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, Path]:
    """A profile in int8, and one in fp32."""
    paths = tmp_path / "int8.json", tmp_path / "fp32.json"
    for path, made in zip(paths, (int8(), fp32()), strict=True):
        profile_file.write(path, made)
    return paths


def test_a_file_is_measured_and_written(tmp_path: Path) -> None:
    model, out = adapted(raw_model(tmp_path / "source.onnx")), tmp_path / "p.json"
    done = run(model, "--runs", 5, "--threads", 1, "--top", 2, "--out", out)
    assert done.exit_code == OK, done.output
    assert "adapted.onnx, made for fp32, on openvino" in done.output
    assert f"written to {out} and {tmp_path / 'p.html'}" in done.output
    assert "The layers of adapted.onnx" in (tmp_path / "p.html").read_text()
    measured = profile_file.read(out)
    assert (measured.runtime, measured.threads, measured.runs) == ("openvino", 1, 5)
    assert f"{len(measured.layers)} layers" in done.output


def test_saved_profiles_are_not_measured_again(saved: tuple[Path, Path]) -> None:
    done = run(saved[0], "--against", saved[1])
    assert done.exit_code == OK, done.output
    assert "int8.onnx takes 19.50 ms a call and fp32.onnx 20.00 ms: 1.03 times as fast" in done.output
    assert "why int8 is no faster" in done.output
    assert "layers from fp32 to int8" in done.output


def test_a_file_against_a_saved_profile(tmp_path: Path, saved: tuple[Path, Path]) -> None:
    model = adapted(raw_model(tmp_path / "source.onnx"))
    done = run(model, "--runs", 5, "--against", saved[1])
    assert isinstance(done.exception, ContractError)
    assert "no layer in common" in str(done.exception)
    assert run(model, "--runs", 5, "--runtime", "onnxruntime", "--out", tmp_path / "ort.json").exit_code == OK
    done = run(model, "--runs", 5, "--against", tmp_path / "ort.json")
    assert done.exit_code == OK
    assert "adapted.onnx on openvino takes" in done.output


def test_json(saved: tuple[Path, Path]) -> None:
    alone, against = (json.loads(run(saved[0], *more, "--json").stdout) for more in ((), ("--against", saved[1])))
    assert alone == json.loads(saved[0].read_text())
    assert against["speedup"] == pytest.approx(20 / 19.5)
    assert [part["name"] for part in against["parts"]][:2] == ["layers from fp32 to int8", "reformats"]
    assert against["reasons"]


def test_what_is_refused(tmp_path: Path) -> None:
    assert run("x.onnx", "--out", tmp_path / "p.html").exit_code == USAGE
    assert run("x.onnx", "--runs", 1).exit_code == USAGE
    assert isinstance(run("9", "--model-repository", tmp_path).exception, BuildError)
    (tmp_path / "run.json").write_text('{"version": 2}')
    assert isinstance(run(tmp_path / "run.json").exception, ContractError)
