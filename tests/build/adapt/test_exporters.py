"""Exporters that name their family in the metadata: images are prepared as for that family."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
from numpy.typing import NDArray

from support.detectors import query_model
from support.families import FAMILIES, one_class_each
from triptych.contract import Placement
from triptych.runtimes import open_runtime
from triptych_build.adapt.adapter import Overrides, adapt_file, describe
from triptych_build.adapt.exporters import LIBREYOLO
from triptych_build.adapt.heads.head import IMAGENET, Normalization
from triptych_build.adapt.onnx_file import Adapted

CORNERS = next(family for family in FAMILIES if family.name == "raw, corners")
RTMDET = {"libreyolo_version": "1.6.0", "model_family": "rtmdet"}
MMDET = {"mean": (103.53, 116.28, 123.675), "std": (57.375, 57.12, 58.395)}


def tagged(path: Path, metadata: dict[str, str]) -> Path:
    model = onnx.load(path)
    for key, value in metadata.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.save(model, path)
    return path


def adapted(tmp_path: Path, metadata: dict[str, str], overrides: Overrides | None = None) -> Adapted:
    source = tagged(CORNERS.make(tmp_path / "source.onnx"), metadata)
    return adapt_file(source, tmp_path / "adapted.onnx", overrides)


def test_rtmdet_gets_the_pixels_that_it_was_trained_on(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    record = adapted(tmp_path, RTMDET)
    assert describe(record)[2:] == [
        "       top_left letterbox on 114, scale 1, mean 103.5,116.3,123.7, std 57.38,57.12,58.4",
        "       the best 84 candidates, an answer of 300 rows",
        "       the metadata names libreyolo's rtmdet: images are prepared as for that",
    ]
    candidates = open_runtime("onnxruntime", tmp_path / "adapted.onnx", threads=1).detect(pixels)
    session = onnxruntime.InferenceSession(str(tmp_path / "source.onnx"), providers=["CPUExecutionProvider"])
    for image, rows in zip(pixels, candidates, strict=True):
        floats = (image[..., ::-1] - np.array(MMDET["mean"])) / np.array(MMDET["std"])
        table = session.run(None, {"images": floats.transpose(2, 0, 1)[None].astype(np.float32)})[0][0]
        assert np.abs(rows[:84] - one_class_each(table[:, :4], table[:, 4:])).max() < 1e-3


def test_what_the_user_says_comes_first(tmp_path: Path) -> None:
    asked = Overrides(order="rgb", placement="center", pad_value=0)
    record = adapted(tmp_path, RTMDET, asked)
    assert record.normalization == Normalization("rgb", 1.0, **MMDET)
    assert (record.spec.placement, record.spec.pad_value) == ("center", 0)


@pytest.mark.parametrize(
    "metadata", [{"model_family": "rtmdet"}, {"libreyolo_version": "9", "model_family": "new"}, {}]
)
def test_without_a_family_that_is_known_the_head_decides(tmp_path: Path, metadata: dict[str, str]) -> None:
    record = adapted(tmp_path, metadata)
    assert (record.normalization, record.spec.placement, record.exporter) == (Normalization(), "center", "")


@pytest.mark.parametrize(("pad", "placement"), [("", "top_left"), ("topleft", "top_left"), ("center", "center")])
def test_yolo9_says_where_the_image_lies(tmp_path: Path, pad: str, placement: Placement) -> None:
    record = adapted(tmp_path, RTMDET | {"model_family": "yolo9", "letterbox_pad": pad})
    assert record.spec.placement == placement


@pytest.mark.parametrize(("size", "normalization"), [("atto", Normalization()), ("s", IMAGENET)])
def test_deimv2_takes_what_its_backbone_was_trained_on(tmp_path: Path, size: str, normalization: Normalization) -> None:
    source = tagged(query_model(tmp_path / "source.onnx"), RTMDET | {"model_family": "deimv2", "size": size})
    record = adapt_file(source, tmp_path / "adapted.onnx")
    assert (record.normalization, record.spec.placement) == (normalization, "stretch")


def test_a_border_is_a_grey_level() -> None:
    assert all(0 <= known.pad_value <= 255 for known in LIBREYOLO.values())


def loud(path: Path) -> Path:
    """Make RTMDet's layout with corners that are in order only where the pixels have a deviation near 1.

    They reach beyond the image there; of pixels in 0..255 they are far from it, and of those in 0..1 they cross.
    """
    side, stride, classes = 64, 4, 3
    cells = (side // stride) ** 2
    at = (np.stack(np.meshgrid(np.arange(0, side, stride), np.arange(0, side, stride)), -1) + stride / 2).reshape(-1, 2)
    rng = np.random.default_rng(3)
    reach = rng.uniform(20, 200, (cells, 4)) * (-1, -1, 1, 1)
    model = onnx.parser.parse_model(f"""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[1, 3, {side}, {side}] images) => (float[1, {cells}, {4 + classes}] output) {{
            size = Abs (images)
            loudness = ReduceMean <axes = [1, 2, 3], keepdims = 0> (size)
            above = Sub (loudness, quiet)
            far = Mul (above, reach)
            boxes = Add (far, at)
            output = Concat <axis = 2> (boxes, scores)
        }}""")
    for name, values in {
        "quiet": np.array([0.55]),
        "reach": reach[None],
        "at": np.tile(at, 2)[None],
        "scores": rng.uniform(0, 0.9, (1, cells, classes)),
    }.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(values.astype(np.float32), name))
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("told", ["by the metadata", "by the user"])
def test_what_is_known_of_the_pixels_is_heeded_when_the_boxes_are_read(told: str, tmp_path: Path) -> None:
    source = loud(tmp_path / "source.onnx")
    by_metadata = told == "by the metadata"
    overrides = (
        Overrides(names=("a", "b", "c"))
        if by_metadata
        else Overrides(names=("a", "b", "c"), order="bgr", scale=1.0, mean=MMDET["mean"], std=MMDET["std"])
    )
    record = adapt_file(tagged(source, RTMDET) if by_metadata else source, tmp_path / "adapted.onnx", overrides)
    assert record.reading is not None
    assert (record.reading.boxes, record.reading.unit) == ("corners", "pixels")


def test_the_exporter_says_how_boxes_of_anchors_are_read_and_the_user_before_it(tmp_path: Path) -> None:
    """These are centres, and look like them; trained weights may look like anything on drawn images."""
    centers = next(family for family in FAMILIES if family.name == "raw, transposed")
    source = tagged(centers.make(tmp_path / "source.onnx"), RTMDET)
    by_exporter = adapt_file(source, tmp_path / "adapted.onnx").reading
    by_user = adapt_file(source, tmp_path / "adapted.onnx", Overrides(boxes="centers")).reading
    assert by_exporter
    assert by_user
    assert (by_exporter.boxes, by_exporter.unit) == ("corners", "pixels")
    assert (by_user.boxes, by_user.unit) == ("centers", "pixels")


def test_rows_behind_suppression_are_read(tmp_path: Path) -> None:
    """A family's tables are not its rows: with suppression inside, a DETR gives corners in pixels."""
    rows = next(family for family in FAMILIES if family.name == "rows")
    source = tagged(rows.make(tmp_path / "source.onnx"), RTMDET | {"model_family": "deimv2"})
    reading = adapt_file(source, tmp_path / "adapted.onnx").reading
    assert reading
    assert (reading.boxes, reading.unit) == ("corners", "pixels")


def test_boxes_that_are_told_leave_the_scores_to_be_read(tmp_path: Path) -> None:
    source = query_model(tmp_path / "source.onnx")
    told = adapt_file(source, tmp_path / "adapted.onnx", Overrides(boxes="centers", unit="fractions"))
    assert told.reading == adapt_file(source, tmp_path / "adapted.onnx").reading
