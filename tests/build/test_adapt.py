"""The adapted graph against a NumPy decode of the source's own output, on every runtime that CI has."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import adapt
import heads
from adapt import Overrides
from detectors import SIDE, conv_model, raw_model, yolox_model
from triptych.errors import BuildError
from triptych.runtimes import load


def run_source(path: Path, pixels: np.ndarray, *, bgr: bool, scale: float) -> np.ndarray:
    """The source's own output, image by image, on pixels prepared the long way in NumPy."""
    images = pixels[..., ::-1] if bgr else pixels
    tensors = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).astype(np.float32) * np.float32(scale)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: tensor[None]})[0] for tensor in tensors])


def top(boxes_xyxy: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Reference candidates of one image: boxes [A, 4], scores [A, C] to rows [A, 6], best first."""
    rows = np.column_stack([boxes_xyxy, scores.max(1), scores.argmax(1)])
    return rows[np.argsort(-rows[:, 4], kind="stable")][:300]


def decode_raw(output: np.ndarray) -> list[np.ndarray]:
    result = []
    for image in output:
        center, size, scores = image[:2].T, image[2:4].T, image[4:].T
        result.append(top(np.hstack([center - size / 2, center + size / 2]), scores))
    return result


def decode_yolox(output: np.ndarray, side: int = SIDE) -> list[np.ndarray]:
    result = []
    for image in output:
        rows, start = [], 0
        for stride in (8, 16, 32):
            for y in range(side // stride):
                for x in range(side // stride):
                    dx, dy, log_w, log_h, objectness, *classes = image[start]
                    cx, cy, w, h = (dx + x) * stride, (dy + y) * stride, np.exp(log_w) * stride, np.exp(log_h) * stride
                    rows.append([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2, *(objectness * np.array(classes))])
                    start += 1
        table = np.array(rows)
        result.append(top(table[:, :4], table[:, 4:]))
    return result


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    ("head", "make", "decode", "bgr", "scale"),
    [
        ("raw", raw_model, decode_raw, False, 1 / 255),
        ("yolox", yolox_model, decode_yolox, True, 1.0),
    ],
)
def test_candidates_equal_the_reference_decode(tmp_path, pixels, runtime, head, make, decode, bgr, scale):
    source = make(tmp_path / "source.onnx")
    record = adapt.adapt_file(source, tmp_path / "adapted.onnx", Overrides())
    candidates = load(runtime, tmp_path / "adapted.onnx", threads=1).detect(pixels)
    reference = decode(run_source(source, pixels, bgr=bgr, scale=scale))

    assert record.head == head
    assert candidates.shape == (3, record.candidates, 6)
    for found, expected in zip(candidates, reference, strict=True):
        assert np.abs(found - expected).max() < 1e-3


@pytest.mark.parametrize("opset", [13, 17, 18, 20])
def test_every_opset_gives_the_same_candidates(tmp_path, pixels, opset):
    source = raw_model(tmp_path / "source.onnx", opset=opset)
    adapt.adapt_file(source, tmp_path / "adapted.onnx", Overrides())
    candidates = load("onnxruntime", tmp_path / "adapted.onnx", threads=1).detect(pixels)
    reference = decode_raw(run_source(source, pixels, bgr=False, scale=1 / 255))
    assert np.abs(candidates - np.stack(reference)).max() < 1e-3


def test_mean_std_and_order_go_into_the_graph(tmp_path, pixels):
    source = raw_model(tmp_path / "source.onnx")
    overrides = Overrides(order="bgr", scale=0.5, mean=(1.0, 2.0, 3.0), std=(2.0, 4.0, 8.0))
    adapt.adapt_file(source, tmp_path / "adapted.onnx", overrides)
    candidates = load("onnxruntime", tmp_path / "adapted.onnx", threads=1).detect(pixels)

    prepared = (pixels[..., ::-1].astype(np.float32) * 0.5 - [1, 2, 3]) / [2, 4, 8]
    reference = decode_raw(run_source(source, prepared, bgr=False, scale=1.0))
    assert np.abs(candidates - np.stack(reference)).max() < 1e-3


def test_only_plain_operators_are_added(tmp_path):
    adapted = adapt.adapt(raw_model(tmp_path / "source.onnx"))
    assert {node.domain for node in adapted.graph.node} == {""}
    assert [value.name for value in adapted.graph.input] == ["pixels"]
    assert [value.name for value in adapted.graph.output] == ["candidates"]


def test_the_first_operator_is_the_cast_that_tensorrt_asks_for(tmp_path):
    first = adapt.adapt(raw_model(tmp_path / "source.onnx")).graph.node[0]
    assert (first.op_type, list(first.input)) == ("Cast", ["pixels"])


def test_names_come_from_the_metadata_a_list_or_numbers(tmp_path):
    path = raw_model(tmp_path / "source.onnx")
    assert adapt.read_adapted(adapt.adapt(path)).spec.class_names[:2] == ("class 0", "class 1")

    model = onnx.load(path)
    entry = model.metadata_props.add()
    entry.key, entry.value = "names", str(dict(enumerate("abcde")))
    onnx.save(model, path)
    assert adapt.read_adapted(adapt.adapt(path)).spec.class_names == tuple("abcde")
    assert adapt.read_adapted(adapt.adapt(path, Overrides(names=list("vwxyz")))).spec.class_names == tuple("vwxyz")
    with pytest.raises(BuildError, match="5 classes, but 2 names"):
        adapt.adapt(path, Overrides(names=["a", "b"]))


def test_an_open_size_wants_to_be_told(tmp_path):
    path = raw_model(tmp_path / "source.onnx")
    model = onnx.load(path)
    for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_param = "side"
    del model.graph.output[0].type.tensor_type.shape.dim[2]
    model.graph.output[0].type.tensor_type.shape.dim.add().dim_param = "anchors"
    onnx.save(model, path)
    with pytest.raises(BuildError, match="--size"):
        adapt.adapt(path)
    record = adapt.read_adapted(adapt.adapt(path, Overrides(size=(96, 64))))
    assert (record.spec.width, record.spec.height, record.candidates) == (96, 64, 96)


def test_a_size_that_contradicts_the_model_is_refused(tmp_path):
    with pytest.raises(BuildError, match="--size asks for height 32, but the model was exported with height 64"):
        adapt.adapt(raw_model(tmp_path / "source.onnx"), Overrides(size=(32, 32)))


def test_yolox_grid_is_in_the_order_of_its_output():
    grid = heads.yolox_grid(64, 32)
    assert grid.shape == (8 * 4 + 4 * 2 + 2 * 1, 3)
    assert grid[:2].tolist() == [[0, 0, 8], [1, 0, 8]]
    assert grid[8].tolist() == [0, 1, 8]
    assert grid[-1].tolist() == [1, 0, 32]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no file"),
        (b"", "not a whole ONNX model"),
        (b"GIF89a, surely no model", "not a whole ONNX model"),
        ("truncated", "not a whole ONNX model"),
    ],
)
def test_a_file_that_is_no_model_is_one_sentence(tmp_path, content, message):
    path = tmp_path / "source.onnx"
    if content == "truncated":
        raw_model(path)
        path.write_bytes(path.read_bytes()[:-2000])
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(BuildError, match=message) as caught:
        adapt.adapt(path)
    assert "\n" not in str(caught.value)


def test_an_unknown_head_says_what_came_and_what_is_known(tmp_path):
    conv_model(tmp_path / "source.onnx", "output0 = Sigmoid (cells)", "N, 7, 8, 8", 7)
    with pytest.raises(BuildError, match=r"output0 \[\?, 7, 8, 8\].*no head.*yolox.*raw"):
        adapt.adapt(tmp_path / "source.onnx")


def test_a_head_that_does_not_fit_is_refused_even_when_named(tmp_path):
    with pytest.raises(BuildError, match="the head 'yolox' needs"):
        adapt.adapt(raw_model(tmp_path / "source.onnx"), Overrides(head="yolox"))


def test_the_record_survives_the_file(tmp_path):
    record = adapt.adapt_file(raw_model(tmp_path / "source.onnx"), tmp_path / "adapted.onnx", Overrides(pad_value=0))
    assert adapt.read_adapted(onnx.load(tmp_path / "adapted.onnx")) == record
    assert json.loads(onnx.load(tmp_path / "adapted.onnx").metadata_props[-1].value)["spec"]["pad_value"] == 0


def test_real_yolox_nano(shared_data, tmp_path):
    source = shared_data / "yolox_nano" / "yolox_nano.onnx"
    pixels = np.random.default_rng(1).integers(0, 256, (1, 416, 416, 3), dtype=np.uint8)
    record = adapt.adapt_file(source, tmp_path / "adapted.onnx", Overrides())
    reference = decode_yolox(run_source(source, pixels, bgr=True, scale=1.0), 416)[0]
    assert record.head == "yolox"
    for runtime in ("onnxruntime", "openvino"):
        candidates = load(runtime, tmp_path / "adapted.onnx", threads=2).detect(pixels)[0]
        # Random pixels score low and close together, so ranks may swap: compare what is clearly apart.
        assert np.abs(candidates[:5, 4] - reference[:5, 4]).max() < 1e-3
        assert np.abs(np.sort(candidates[:, 4]) - np.sort(reference[:, 4])).max() < 1e-3
