"""What scaled decoding costs and saves, on boards of the demo."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import pytest

from support import ROOT
from triptych_build.adapt.adapter import Overrides, adapt_file
from triptych_build.verify.decoding import DecodingCost, measure_decoding
from triptych_build.verify.truth import Dataset
from triptych_demo.detector import boards


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("adapted") / "adapted.onnx"
    adapt_file(ROOT / "demo" / "pcb.onnx", out, Overrides(decode="scaled"))
    return out


def save_boards(folder: Path, side: int, suffix: str = ".jpg") -> Dataset:
    paths = []
    for index in range(3):
        board = boards.generate(seed=11, index=index).image[..., ::-1]
        paths.append(folder / f"{index}{suffix}")
        cv2.imwrite(str(paths[-1]), cv2.resize(board, (side, side), interpolation=cv2.INTER_CUBIC))
    return Dataset(tuple(paths), None)


def test_large_jpegs_are_measured(source: Path, tmp_path: Path) -> None:
    cost = measure_decoding(source, save_boards(tmp_path, 1300))
    assert (cost.images, cost.reduced) == (3, 3)
    assert cost.loss_points is not None
    assert cost.interval_points[0] <= cost.loss_points <= cost.interval_points[1]
    assert abs(cost.loss_points) < 30
    assert cost.full_ms > 0
    assert cost.scaled_ms > 0


@pytest.mark.parametrize(("side", "suffix"), [(640, ".jpg"), (1300, ".png")])
def test_where_nothing_is_reduced_nothing_is_measured(source: Path, tmp_path: Path, side: int, suffix: str) -> None:
    assert measure_decoding(source, save_boards(tmp_path, side, suffix)) == DecodingCost(3, 0)


def test_it_is_said_in_a_sentence() -> None:
    cost = DecodingCost(33, 30, 0.05, (-0.1, 0.2), 4.07, 3.25)
    assert str(cost) == (
        "decode: scaled takes 3.25 ms in place of 4.07 for each of 30 of 33 images, and loses 0.05 points of mAP50-95 "
        "(-0.10 to 0.20)"
    )
    assert str(replace(cost, loss_points=0.11)).endswith(", more than 0.1: prefer --decode full")
    assert "changes none of the 33 images" in str(DecodingCost(33, 0))
