"""Profiles that the runtimes of this machine measure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from support import ROOT
from support.detectors import raw_model
from support.graphs import adapted
from triptych.errors import BuildError
from triptych.measure.profile_change import compare
from triptych.runtimes import onnxruntime
from triptych_build.profile.measure import ROUNDS, measure
from triptych_build.profile.subject import find


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from triptych_build.adapt.adapter import adapt_file

    path = tmp_path_factory.mktemp("profile") / "demo.onnx"
    adapt_file(ROOT / "demo" / "pcb.onnx", path)
    return path


def test_the_demo_on_both_runtimes(demo: Path) -> None:
    """Their layers are fused and named in two ways, and stand for the same operators."""
    turns: list[tuple[int, int]] = []
    subjects = [find(str(demo), demo, runtime, 1) for runtime in ("onnxruntime", "openvino")]
    before, after = measure(subjects, 1, 6, ["triptych"], lambda done, of: turns.append((done, of)))
    assert turns == [(number + 1, ROUNDS) for number in range(ROUNDS)]
    for profile in (before, after):
        assert profile.runs == 6
        # All 68 convolutions; whatever the machine's speed, the layers take no longer than the calls they were in.
        assert len(profile.with_weights()) == 68
        assert 0 < profile.layers_ms <= profile.profiled_ms * 1.01 + 0.1
        assert profile.environment.versions[profile.runtime]
        assert all(layer.operators for layer in profile.with_weights())
    change = compare(before, after)
    matched = [group for group in change.groups if group.before and group.after]
    assert sum(layer.has_weights for group in matched for layer in group.after) == 68


def test_a_batch_that_goes_through_one_by_one_is_one_call(tmp_path: Path) -> None:
    model = adapted(raw_model(tmp_path / "source.onnx"))
    subjects = [find(str(model), tmp_path, runtime, 1) for runtime in ("openvino", "onnxruntime")]
    for profile in measure(subjects, 3, 5, [], lambda *_: None):
        assert profile.batch == 3
        assert len([layer for layer in profile.layers if layer.has_weights]) == 1


def test_a_profile_that_is_not_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = adapted(raw_model(tmp_path / "source.onnx"))
    monkeypatch.setattr(onnxruntime, "read_profile", lambda events: [])
    with pytest.raises(BuildError, match=r"adapted\.onnx has no profile: .* kept 0 of 8 executions .*fewer --runs"):
        measure([find(str(model), tmp_path, "onnxruntime", 1)], 1, 5, [], lambda *_: None)


def test_a_runtime_that_fails_at_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_self: object, _pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
        raise RuntimeError("out of memory")

    model = adapted(raw_model(tmp_path / "source.onnx"))
    monkeypatch.setattr(onnxruntime.OnnxRuntime, "_run", fails)
    with pytest.raises(BuildError, match=r"adapted\.onnx cannot be run with a batch of 2: out of memory"):
        measure([find(str(model), tmp_path, "onnxruntime", 1)], 2, 5, [], lambda *_: None)
