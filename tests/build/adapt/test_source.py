"""What is read out of a source's graph: its size and its class names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import pytest

from support.detectors import add_metadata, end_to_end_model, mmdeploy_model, open_size, raw_model
from triptych.errors import BuildError
from triptych_build.adapt.names import class_names, names_in_metadata
from triptych_build.adapt.onnx_file import read_onnx
from triptych_build.adapt.source import describe_source, image_input, take_image


def size_of(path: Path, asked: tuple[int, int] | None = None) -> tuple[int, int]:
    model = read_onnx(path)
    image, _ = take_image(model, asked)
    source = describe_source(model, image)
    return source.width, source.height


def test_an_open_size_comes_from_the_user_or_the_metadata(tmp_path: Path) -> None:
    path = add_metadata(open_size(raw_model(tmp_path / "source.onnx")), "imgsz", "[64, 96]")
    assert size_of(path) == (96, 64)
    assert size_of(path, (64, 128)) == (64, 128)


@pytest.mark.parametrize("metadata", [None, "640", "[64, side]"])
def test_a_size_that_nothing_names_is_asked_for(tmp_path: Path, metadata: str | None) -> None:
    path = open_size(raw_model(tmp_path / "source.onnx"))
    if metadata:
        add_metadata(path, "imgsz", metadata)
    with pytest.raises(BuildError, match=r"images \[N, 3, height, width\] has no fixed size; give one with --size"):
        size_of(path)


def test_a_size_that_the_graph_cannot_take_is_refused(tmp_path: Path) -> None:
    path = raw_model(tmp_path / "source.onnx")
    model = onnx.load(path)
    shape = next(tensor for tensor in model.graph.initializer if tensor.name == "flat_shape")
    shape.CopyFrom(onnx.numpy_helper.from_array(np.array([0, 9, 64]), "flat_shape"))
    onnx.save(model, path)
    with pytest.raises(BuildError, match=r"does not run at 32x96 in ONNX Runtime: .*export it at that size"):
        size_of(path, (32, 96))
    with pytest.raises(BuildError, match=r"does not run at 50x70: .* a multiple of 32, such as --size 64x64"):
        size_of(path, (50, 70))


def test_a_size_that_the_graph_can_take_as_well(tmp_path: Path) -> None:
    assert size_of(raw_model(tmp_path / "source.onnx"), (96, 32)) == (96, 32)


def test_a_model_that_takes_something_else_is_refused(tmp_path: Path) -> None:
    model = onnx.load(raw_model(tmp_path / "source.onnx"))
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1
    with pytest.raises(BuildError, match=r"one image \[N, 3, height, width\].*inputs are images \[N, 1, 64, 64\]"):
        image_input(model)


def test_a_size_that_depends_on_the_image_is_open(tmp_path: Path) -> None:
    model = read_onnx(end_to_end_model(tmp_path / "source.onnx", open_count=True))
    assert [output.shape for output in describe_source(model, image_input(model)).outputs] == [(1, None, 6)]


def test_names_come_from_the_user_the_metadata_or_numbers(tmp_path: Path) -> None:
    path = raw_model(tmp_path / "source.onnx")
    assert class_names(names_in_metadata(onnx.load(path)), 5, None)[:2] == ("class 0", "class 1")
    assert class_names(names_in_metadata(onnx.load(path)), 5, list("vwxyz")) == tuple("vwxyz")
    model = onnx.load(add_metadata(path, "names", str(dict(enumerate("abcde")))))
    assert class_names(names_in_metadata(model), 5, None) == tuple("abcde")
    assert class_names(names_in_metadata(model), 5, list("vwxyz")) == tuple("vwxyz")
    with pytest.raises(BuildError, match="5 classes, but 2 names"):
        class_names(names_in_metadata(model), 5, ["a", "b"])


@pytest.mark.parametrize("text", ["['a', 'b']", "{0: 'a', 1: 'b'}"])
def test_names_in_the_metadata_as_a_list_or_by_number(tmp_path: Path, text: str) -> None:
    model = onnx.load(add_metadata(raw_model(tmp_path / "source.onnx"), "names", text))
    assert class_names(names_in_metadata(model), None, None) == ("a", "b")


@pytest.mark.parametrize("make", [end_to_end_model, mmdeploy_model])
def test_a_head_that_hides_its_classes_wants_names(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    model = onnx.load(make(tmp_path / "source.onnx"))
    del model.metadata_props[:]
    with pytest.raises(BuildError, match="--names"):
        class_names(names_in_metadata(model), None, None)
    assert class_names(names_in_metadata(model), None, ["only"]) == ("only",)
