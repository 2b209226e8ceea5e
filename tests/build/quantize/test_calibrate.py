"""Ranges: what the images and the methods make of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from support.graphs import scales, spec_of
from triptych.errors import BuildError
from triptych_build.adapt.onnx_file import read_onnx
from triptych_build.quantize import calibrate
from triptych_build.quantize.calibrate import (
    ADVISED_IMAGES,
    BINS,
    Calibration,
    Method,
    calibration_images,
    describe_calibration,
    read_pixels,
)
from triptych_build.quantize.quantizer import post_training
from triptych_build.quantize.sensitivity import candidates_of, disagreement


@pytest.mark.parametrize(
    ("method", "bins"),
    [
        ("percentile", BINS),
        ("entropy", BINS // 2),
        pytest.param("entropy", BINS, marks=pytest.mark.slow),
    ],
)
def test_a_method_has_ranges_of_its_own_and_keeps_what_the_demo_detects(
    demo: Path,
    images: Path,
    quantized: onnx.ModelProto,
    board_pixels: NDArray[np.uint8],
    method: Method,
    bins: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calibrate, "BINS", bins)
    model = read_onnx(demo)
    calibration = Calibration(calibration_images(images)[:4], method)
    result = post_training(model, spec_of(demo), calibration).model
    chosen, whole = scales(result), scales(quantized)
    assert chosen.keys() == whole.keys()
    assert all(chosen[name] <= whole[name] * 1.02 for name in whole), "a range is wider than what was measured"
    assert any(chosen[name] < whole[name] * 0.9 for name in whole), f"{method} is max by another name"
    reference, candidates, candidates_of_max = (
        candidates_of(graph, board_pixels) for graph in (model, result, quantized)
    )
    assert 0 < disagreement(reference, candidates) < 0.08
    assert 0 < disagreement(reference, candidates_of_max) < 0.08


def test_every_image_counts_whatever_chunk_it_is_in(
    deep: Path, images: Path, quantized_deep: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrate, "CHUNK", 1)
    calibration = Calibration(calibration_images(images)[:4], "max")
    again = post_training(read_onnx(deep), spec_of(deep), calibration).model
    assert scales(again) == pytest.approx(scales(quantized_deep))


def test_the_calibrators_print_nothing(deep: Path, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    post_training(read_onnx(deep), spec_of(deep), Calibration(calibration_images(images)[:1], "percentile"))
    assert capsys.readouterr() == ("", "")


def test_few_images_are_remarked_on(images: Path) -> None:
    few = Calibration(calibration_images(images))
    assert describe_calibration(few) == ["quantize: only 6 calibration images; 200 or more are advised"]
    assert describe_calibration(Calibration((images / "board_0.jpg",) * ADVISED_IMAGES)) == []


def test_the_hash_is_of_the_images_and_their_order(images: Path) -> None:
    files = calibration_images(images)
    assert Calibration(files).sha256() == Calibration(files, "max").sha256()
    assert len({Calibration(some).sha256() for some in (files, files[:5], files[::-1])}) == 3


def test_no_directory_and_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"there is no directory of calibration images .*nowhere; name one with"):
        calibration_images(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("not an image")
    with pytest.raises(BuildError, match="holds no images to calibrate with; put at least 200 typical ones there"):
        calibration_images(tmp_path)


def test_an_image_that_cannot_be_read_is_named(tmp_path: Path, demo: Path, images: Path) -> None:
    cut = tmp_path / "cut.jpg"
    cut.write_bytes((images / "board_3.jpg").read_bytes()[:50])
    with pytest.raises(BuildError, match=r"the calibration image .*cut\.jpg cannot be read \(.+\); remove it"):
        read_pixels([images / "board_0.jpg", cut], spec_of(demo))
