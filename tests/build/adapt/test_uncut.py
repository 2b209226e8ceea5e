"""The source without its cut gives every candidate that its head has."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from support.detectors import (
    end_to_end_model,
    mmdeploy_model,
    objectness_model,
    query_model,
    raw_model,
    yolox_model,
)
from triptych.runtimes import open_runtime
from triptych_build.adapt.adapter import Overrides, adapt
from triptych_build.adapt.uncut import uncut


@pytest.mark.parametrize(
    ("make", "all_of_them"),
    [
        (raw_model, 64),
        (yolox_model, 84),
        (objectness_model, 252),
        (end_to_end_model, 64),
        (query_model, 320),
        (mmdeploy_model, 64),
    ],
)
def test_every_candidate_is_there(
    tmp_path: Path, pixels: NDArray[np.uint8], make: Callable[[Path], Path], all_of_them: int
) -> None:
    cut = adapt(make(tmp_path / "source.onnx"), Overrides(candidates=20))
    whole = uncut(cut)
    onnx.checker.check_model(whole, full_check=True)
    onnx.save(cut, tmp_path / "cut.onnx")
    onnx.save(whole, tmp_path / "whole.onnx")
    few, every = (
        open_runtime("onnxruntime", tmp_path / name, threads=1).detect(pixels) for name in ("cut.onnx", "whole.onnx")
    )
    assert (few.shape, every.shape) == ((3, 20, 6), (3, all_of_them, 6))
    np.testing.assert_array_equal(few, every[:, :20])


def test_a_head_that_says_only_when_it_runs_how_many_it_has_stays_as_it_is(tmp_path: Path) -> None:
    cut = adapt(partial(end_to_end_model, open_count=True)(tmp_path / "source.onnx"))
    assert uncut(cut) == cut
