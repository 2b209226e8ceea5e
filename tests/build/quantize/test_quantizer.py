"""Files in every precision, and what is left out or refused."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from support import ROOT
from support.graphs import copy_of, int8_layers, spec_of
from triptych.cli.quantize import QuantizeOptions
from triptych.errors import BuildError
from triptych_build.adapt.onnx_file import read_onnx
from triptych_build.quantize import quantizer
from triptych_build.quantize.calibrate import Calibration, calibration_images
from triptych_build.quantize.precision import PRECISIONS, precision_of
from triptych_build.quantize.qdq import Coverage, quantizable_layers
from triptych_build.quantize.quantizer import MIN_INT8_SHARE, Quantized, describe, post_training, quantize_file
from triptych_build.quantize.sensitivity import SensitiveLayer


@pytest.mark.parametrize("many", [False, True], ids=["name", "pattern"])
def test_excluded_layers_stay_in_float(demo: Path, images: Path, many: bool) -> None:
    layers = quantizable_layers(read_onnx(demo))
    prefix = layers[-1].rsplit("/", 2)[0]
    pattern = f"{prefix}/*" if many else layers[3]
    expected = [layer for layer in layers if not (layer.startswith(f"{prefix}/") if many else layer == layers[3])]
    calibration = Calibration(calibration_images(images)[:1], "max", exclude=(pattern,))
    chosen = int8_layers(post_training(read_onnx(demo), spec_of(demo), calibration).model)
    assert sorted(chosen) == sorted(expected)
    assert 0 < len(layers) - len(chosen) < len(layers)


def test_a_pattern_that_names_nothing_is_refused(demo: Path, images: Path) -> None:
    calibration = Calibration(calibration_images(images)[:1], "max", exclude=("/nowhere/*",))
    message = r"--exclude /nowhere/\* names no layer that int8 would change; such layers are"
    with pytest.raises(BuildError, match=message):
        post_training(read_onnx(demo), spec_of(demo), calibration)


def test_excluding_everything_is_refused_before_anything_is_measured(
    demo: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantizer, "measure_ranges", None)
    calibration = Calibration(calibration_images(images)[:1], "max", exclude=("*",), scan=True)
    with pytest.raises(BuildError, match="every layer is excluded from int8; exclude fewer, or build fp16"):
        post_training(read_onnx(demo), spec_of(demo), calibration)


def test_what_is_quantized_already_is_refused(demo: Path, images: Path, quantized: onnx.ModelProto) -> None:
    calibration = Calibration(calibration_images(images)[:1], "max")
    with pytest.raises(BuildError, match="quantized already"):
        post_training(copy_of(quantized), spec_of(demo), calibration)


def test_nothing_is_left_where_an_image_cannot_be_read(tmp_path: Path, demo: Path) -> None:
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8")
    out = tmp_path / "out" / "int8.onnx"
    with pytest.raises(BuildError, match=r"the calibration image .*cut\.jpg cannot be read \(.+\); remove it"):
        quantize_file(demo, out, "int8", Calibration((tmp_path / "cut.jpg",), "max"))
    assert not out.parent.exists()


def test_nothing_is_left_where_the_disk_refuses(tmp_path: Path, deep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_model: onnx.ModelProto, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(onnx, "save", refuse)
    with pytest.raises(OSError, match="No space left"):
        quantize_file(deep, tmp_path / "fp16.onnx", "fp16")
    assert not list(tmp_path.iterdir())


def test_files_of_every_precision(tmp_path: Path, deep: Path, images: Path) -> None:
    calibration = Calibration(calibration_images(images)[:1], "max")
    for precision in PRECISIONS:
        quantized = quantize_file(deep, tmp_path / f"{precision}.onnx", precision, calibration)
        assert precision_of(read_onnx(tmp_path / f"{precision}.onnx")) == precision
        assert quantized.left_in_float == ()
    quantize_file(tmp_path / "int8.onnx", tmp_path / "again.onnx", "int8")
    assert onnx.load(tmp_path / "again.onnx") == read_onnx(tmp_path / "int8.onnx")


def test_int8_without_images_and_a_source_as_it_is(tmp_path: Path, demo: Path) -> None:
    with pytest.raises(BuildError, match=r"int8 needs images to calibrate with; .*--calibration"):
        quantize_file(demo, tmp_path / "out.onnx", "int8")
    with pytest.raises(BuildError, match=r"is not adapted to the contract; run `triptych adapt"):
        quantize_file(ROOT / "demo" / "pcb.onnx", tmp_path / "out.onnx", "fp16")
    assert not list(tmp_path.iterdir())


def test_int8_that_is_hardly_int8_is_refused(tmp_path: Path, deep: Path, images: Path) -> None:
    layers = quantizable_layers(read_onnx(deep))
    calibration = Calibration(calibration_images(images)[:1], "max", exclude=tuple(layers[1:]))
    message = rf"only 1 of 21 layers became int8, fewer than 50%: {layers[1]}, .* and 17 more stayed in float; .*"
    with pytest.raises(BuildError, match=message + r"have it so with --min-int8-share 0\.04"):
        quantize_file(deep, tmp_path / "out.onnx", "int8", calibration)
    assert not list(tmp_path.iterdir())
    quantized = quantize_file(deep, tmp_path / "out.onnx", "int8", calibration, min_int8_share=0.04)
    assert quantized.coverage is not None
    assert quantized.coverage.quantized == (layers[0],)
    assert QuantizeOptions().min_int8_share == MIN_INT8_SHARE
    with pytest.raises(BuildError, match="only 1 of 21 layers became int8"):  # nor from elsewhere
        quantize_file(tmp_path / "out.onnx", tmp_path / "again.onnx", "int8")


def test_what_was_made_in_words(tmp_path: Path) -> None:
    out = tmp_path / "int8.onnx"
    out.write_bytes(bytes(1_200_000))
    assert describe(Quantized(onnx.ModelProto(), (SensitiveLayer("/head/Conv", 0.25, 0.3),)), out, "int8") == [
        "quantize: /head/Conv stays in float: alone it moves detections by 25.00% (all: 30.00%)",
        f"quantize: {out} in int8, 1.2 MB",
    ]
    most = Coverage(("a", "b"), ("c", "d", "e", "f"))
    assert describe(Quantized(onnx.ModelProto(), (), most), out, "int8") == [
        "quantize: 2 of 6 layers in int8; in float: c, d, e and 1 more",
        f"quantize: {out} in int8, 1.2 MB",
    ]
