"""What the user's overrides do, what is recorded, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.helper
import onnx.parser
import pytest
from numpy.typing import NDArray
from onnx import TensorProto

from support.detectors import CLASSES, conv_model, open_size, raw_model, suppressing_model, yolox_model
from support.families import FAMILIES
from support.graphs import record_of
from triptych.contract import DetectorSpec
from triptych.errors import BuildError
from triptych.runtimes import open_runtime
from triptych_build.adapt import adapter
from triptych_build.adapt.adapter import Overrides, adapt, adapt_file, describe
from triptych_build.adapt.batch import BatchTied, fix_untrue_batch
from triptych_build.adapt.names import read_names
from triptych_build.adapt.onnx_file import read_adapted


def spec_with(path: Path, overrides: Overrides) -> DetectorSpec:
    return record_of(adapt(path, overrides)).spec


def test_what_is_left_out_follows_the_family(tmp_path: Path) -> None:
    record = record_of(adapt(yolox_model(tmp_path / "source.onnx")))
    assert (record.normalization.order, record.spec.placement, record.spec.pad_value) == ("bgr", "top_left", 114)
    assert (record.spec.score_threshold, record.spec.iou_threshold) == (0.25, 0.45)


def test_overrides_reach_the_spec(tmp_path: Path) -> None:
    names = list("vwxyz")
    overrides = Overrides(
        placement="stretch",
        pad_value=0,
        score_threshold=0.0,
        iou_threshold=1.0,
        names=names,
        rows=9,
        decode="scaled",
    )
    spec = spec_with(raw_model(tmp_path / "source.onnx"), overrides)
    assert spec == DetectorSpec(64, 64, tuple("vwxyz"), "stretch", 0, 0.0, 1.0, 9, "scaled")


def test_a_standard_deviation_of_0_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="no standard deviation may be 0"):
        adapt(raw_model(tmp_path / "source.onnx"), Overrides(std=(1.0, 0.0, 1.0)))


def test_a_head_that_does_not_fit_is_refused_even_when_named(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="the head 'yolox' needs"):
        adapt(raw_model(tmp_path / "source.onnx"), Overrides(head="yolox"))


def test_an_open_size_must_be_given(tmp_path: Path) -> None:
    path = open_size(raw_model(tmp_path / "source.onnx"))
    with pytest.raises(BuildError, match="--size"):
        adapt(path)
    record = record_of(adapt(path, Overrides(size=(96, 64))))
    assert (record.spec.width, record.spec.height, record.candidates) == (96, 64, 96)


def test_the_record_survives_the_file(tmp_path: Path) -> None:
    record = adapt_file(raw_model(tmp_path / "source.onnx"), tmp_path / "adapted.onnx", Overrides(pad_value=0))
    assert read_adapted(onnx.load(tmp_path / "adapted.onnx")) == record
    assert (record.source, record.head, record.spec.pad_value) == ("source.onnx", "raw", 0)


def test_nothing_is_left_where_the_source_is_refused(tmp_path: Path) -> None:
    conv_model(tmp_path / "source.onnx", "output0 = Sigmoid (cells)", "N, 7, 8, 8", 7)
    with pytest.raises(BuildError):
        adapt_file(tmp_path / "source.onnx", tmp_path / "adapted.onnx")
    assert not (tmp_path / "adapted.onnx").exists()


def test_what_is_said_of_a_batch(tmp_path: Path) -> None:
    out = tmp_path / "adapted.onnx"
    fixed, dynamic = yolox_model(tmp_path / "fixed.onnx"), raw_model(tmp_path / "dynamic.onnx")
    opened, kept = adapt_file(fixed, out), adapt_file(fixed, out, Overrides(keep_batch=True))
    assert (opened.source_batch, opened.batch_kept) == (1, False)
    assert describe(opened) == [
        f"adapt: head yolox, {CLASSES} classes, 64x64, bgr",
        "       boxes are centers in pixels",
        "       top_left letterbox on 114, scale 1",
        "       the best 84 candidates, an answer of 300 rows",
        "       batch: was fixed at 1, is dynamic now (checked on a batch of 2)",
    ]
    assert (kept.source_batch, kept.batch_kept) == (1, True)
    assert describe(kept)[-1] == "       batch: stays fixed at 1; a batch is served image by image"
    for overrides in (Overrides(), Overrides(keep_batch=True)):
        open_batch = adapt_file(dynamic, out, overrides)
        assert (open_batch.source_batch, open_batch.batch_kept) == (None, False)
        assert len(describe(open_batch)) == 4


def test_a_batch_of_one_that_cannot_be_opened_is_kept(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    """Suppression inside the graph, for one image: NonMaxSuppression gives one list for all."""
    source = suppressing_model(tmp_path / "source.onnx")
    record = adapt_file(source, tmp_path / "adapted.onnx")
    assert (record.source_batch, record.batch_kept) == (1, True)
    assert describe(record)[-1].startswith("       it was not opened, since ")
    assert describe(record)[-1].endswith("export the model with a dynamic batch (Ultralytics: dynamic=True)")
    candidates = open_runtime("onnxruntime", tmp_path / "adapted.onnx", threads=1).detect(pixels)
    assert candidates.shape == (3, 300, 6)


def test_an_open_batch_that_takes_one_image_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family = next(family for family in FAMILIES if "anchors are of one image" in family.name)
    source, out = family.make(tmp_path / "source.onnx"), tmp_path / "adapted.onnx"
    assert describe(adapt_file(source, out))[-1].endswith("was fixed at 1, is dynamic now (checked on a batch of 2)")

    def tied(_model: onnx.ModelProto, _image: str) -> onnx.ModelProto:
        raise BatchTied(1, "an operator ties it")

    monkeypatch.setattr(adapter, "open_batch", tied)
    record = adapt_file(source, out)
    assert (record.source_batch, record.batch_kept) == (1, True)
    assert describe(record)[-1].startswith(
        "       it was not opened, since its batch is open by name only, as two images at a time do not run ("
    )


def test_a_model_that_does_not_run_at_all_is_told_elsewhere() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        broken (float[N, 3, 8, 8] images) => (float[N, 7] output0) {
            shape = Constant <value_ints = [-1, 7]> ()
            output0 = Reshape (images, shape)
        }"""
    )
    assert fix_untrue_batch(model, model.graph.input[0]) == ""
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"


def test_image_by_image_needs_a_batch_of_one(tmp_path: Path) -> None:
    path = raw_model(tmp_path / "source.onnx", batch="4")
    with pytest.raises(BuildError, match="--keep-batch serves image by image, but the model takes 4 at a time"):
        adapt(path, Overrides(keep_batch=True))
    assert describe(record_of(adapt(path)))[-1].endswith("was fixed at 4, is dynamic now (checked on a batch of 5)")


def half_precision(path: Path, out: Path) -> Path:
    """A model with fp16 at its ends and their Casts after all other nodes, as Ultralytics exports it with half=True."""
    model = onnx.load(path)
    image, output = model.graph.input[0], model.graph.output[0]
    model.graph.node[0].input[0] = "wide_images"
    half = TensorProto.FLOAT16
    model.graph.node.append(onnx.helper.make_node("Cast", ["images"], ["wide_images"], to=TensorProto.FLOAT))
    model.graph.node.append(onnx.helper.make_node("Cast", [output.name], ["half_output"], to=half))
    output.name = "half_output"
    image.type.tensor_type.elem_type = output.type.tensor_type.elem_type = half
    onnx.save(model, out)
    return out


def test_half_precision_in_an_order_that_the_checker_refuses(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    source = raw_model(tmp_path / "source.onnx")
    candidates = []
    for path in (source, half_precision(source, tmp_path / "half.onnx")):
        adapt_file(path, tmp_path / "adapted.onnx")
        candidates.append(open_runtime("onnxruntime", tmp_path / "adapted.onnx", threads=1).detect(pixels))
    wide, half = candidates
    assert 0 < np.abs(np.sort(wide[..., 4]) - np.sort(half[..., 4])).max() < 2e-3


# --- class names in a file


def test_names_in_a_text_file(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("open\n\n  café \n", encoding="utf-8")
    assert read_names(tmp_path / "names.txt") == ["open", "café"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no file of class names"),
        (b"caf\xe9\n", r"names\.txt is not UTF-8 text; write the class names one a line"),
        (b" \n", "holds no class names; write one a line"),
    ],
)
def test_a_file_without_names(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "names.txt").write_bytes(content)
    with pytest.raises(BuildError, match=message):
        read_names(tmp_path / "names.txt")
