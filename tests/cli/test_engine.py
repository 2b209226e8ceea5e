"""`triptych engine`: profiles and options from text, and a plan of TensorRT for RTX."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import typer

from support.commands import invoke
from support.detectors import raw_model
from triptych.cli import engine as command
from triptych.cli.engine import EngineOptions, parse_profile
from triptych.cli.options import Words
from triptych_build.adapt.adapter import adapt_file
from triptych_build.tensorrt.options import Options, Profile
from triptych_build.tensorrt.plan import record_path

run = partial(invoke, command.engine)


@pytest.mark.parametrize(("text", "sizes"), [("1,8,16", (1, 8, 16)), ("4", (4, 4, 4)), ("1, 2, 3", (1, 2, 3))])
def test_profiles(text: str, sizes: tuple[int, int, int]) -> None:
    profile = parse_profile(text)
    assert profile == Profile(*sizes)
    assert parse_profile(str(profile)) == profile


@pytest.mark.parametrize("text", ["", "1,2", "1,8,16,32", "one", "1,,3", "-1", "1.5"])
def test_text_that_is_no_profile(text: str) -> None:
    with pytest.raises(typer.BadParameter, match=r"expected min,opt,max such as 1,8,16, or one fixed batch"):
        parse_profile(text)


def test_a_profile_out_of_order() -> None:
    with pytest.raises(typer.BadParameter, match="a profile must have 1 <= min <= opt <= max, but got 4,2,8"):
        parse_profile("4,2,8")


def test_options_as_values() -> None:
    assert EngineOptions().options("tensorrt") == Options()
    given = EngineOptions(
        profile=[Profile(1, 1, 1), Profile(1, 4, 8)],
        workspace_mib=512,
        timing_cache=Path("cache"),
        level=4,
        version_compatible=True,
        hardware="ampere_plus",
        compute_capability=Words(("8.6",)),
    )
    assert given.options("tensorrt") == Options(
        profiles=(Profile(1, 1, 1), Profile(1, 4, 8)),
        workspace_mib=512,
        timing_cache=Path("cache"),
        level=4,
        version_compatible=True,
        hardware="ampere_plus",
        compute_capabilities=("8.6",),
    )
    with pytest.raises(typer.BadParameter, match="means nothing to TensorRT for RTX"):
        given.options("tensorrt-rtx")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--profile", "1,2"], "expected min,opt,max such as 1,8,16"),
        (["--profile", "4,2,8"], "a profile must have 1 <= min <= opt <= max, but got 4,2,8"),
        (["--precision", "fp8"], "--precision"),
        (["--level", "6"], "--level"),
        (["--hardware", "all"], "--hardware"),
        (["--builder", "tensorrt-rtx", "--dla-core", "0"], "--dla-core means nothing to TensorRT for RTX"),
    ],
)
def test_a_wrong_command_line(tmp_path: Path, words: list[str], message: str) -> None:
    result = run(tmp_path / "adapted.onnx", "--out", tmp_path / "model.plan", *words)
    assert result.exit_code == 2
    assert message in result.output


def test_a_plan(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx_libs", exc_type=ImportError)
    adapt_file(raw_model(tmp_path / "source.onnx"), tmp_path / "adapted.onnx")
    out = tmp_path / "model.plan"
    words = ["--builder", "tensorrt-rtx", "--precision", "fp16", "--profile", "1,4,8", "--profile", "1"]
    result = run(tmp_path / "adapted.onnx", "--out", out, *words, "--compute-capability", "8.9,12.0")
    assert result.exit_code == 0, result.output
    built = json.loads(record_path(out).read_text())["engine"]
    assert built["profiles"] == [{"min": 1, "opt": 4, "max": 8}, {"min": 1, "opt": 1, "max": 1}]
    assert built["compute_capabilities"] == ["8.9", "12.0"]
    assert f"engine: {out} by tensorrt-rtx {built['version']} in" in result.output
    assert f"batch 1,4,8 and 1; layers of the network: {built['layers']['fp16']} fp16" in result.output
