"""The adapted graph against a NumPy decode of the source's own output, on every runtime that CI has."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from support.detectors import (
    SIDE,
    conv_model,
    end_to_end_model,
    mmdeploy_model,
    objectness_model,
    query_model,
    raw_model,
    yolox_model,
)
from triptych.errors import BuildError
from triptych.runtimes import open_runtime
from triptych_build.adapt import adapter as adapt
from triptych_build.adapt import heads
from triptych_build.adapt.adapter import Overrides


def run_source(path: Path, images: np.ndarray) -> list[list[np.ndarray]]:
    """The source's own outputs, image by image, for images float32 [N, 3, H, W]."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return [[output[0] for output in session.run(None, {name: image[None]})] for image in images]


def prepare(
    pixels: np.ndarray, *, bgr: bool = False, scale: float = 1.0, mean: object = 0, std: object = 1
) -> np.ndarray:
    """Pixels uint8 [N, H, W, 3] to float32 [N, 3, H, W], the long way in NumPy."""
    images = pixels[..., ::-1] if bgr else pixels
    return ((images.astype(np.float64) * scale - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)


def top(boxes_xyxy: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Reference candidates of one image: boxes [A, 4], scores [A, C] to rows [A, 6], best first."""
    return best(np.column_stack([boxes_xyxy, scores.max(1), scores.argmax(1)]))


def best(rows: np.ndarray) -> np.ndarray:
    """Rows [A, 6] by falling score, 300 at most."""
    return rows[np.argsort(-rows[:, 4], kind="stable")][:300]


def corners(center: np.ndarray, size: np.ndarray) -> np.ndarray:
    return np.hstack([center - size / 2, center + size / 2])


def decode_raw(output: np.ndarray) -> np.ndarray:
    return top(corners(output[:2].T, output[2:4].T), output[4:].T)


def decode_objectness(output: np.ndarray) -> np.ndarray:
    return top(corners(output[:, :2], output[:, 2:4]), output[:, 4:5] * output[:, 5:])


def decode_yolox(output: np.ndarray, side: int = SIDE) -> np.ndarray:
    rows, start = [], 0
    for stride in (8, 16, 32):
        for y in range(side // stride):
            for x in range(side // stride):
                dx, dy, log_w, log_h, *scores = output[start]
                center = (dx + x) * stride, (dy + y) * stride
                rows.append([*center, np.exp(log_w) * stride, np.exp(log_h) * stride, *scores])
                start += 1
    return decode_objectness(np.array(rows))


def decode_query(logits: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Every pair of query and class stands for itself, as DETR's descendants count them."""
    queries, classes = logits.shape
    scores = 1 / (1 + np.exp(-logits.astype(np.float64)))
    xyxy = corners(boxes[:, :2], boxes[:, 2:]) * SIDE
    rows = np.column_stack([np.repeat(xyxy, classes, 0), scores.ravel(), np.tile(np.arange(classes), queries)])
    return best(rows)


def decode_mmdeploy(dets: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return best(np.column_stack([dets, labels]))


IMAGENET_BGR = {"mean": (103.53, 116.28, 123.675), "std": (57.375, 57.12, 58.395)}

HEADS = [
    pytest.param("raw", raw_model, decode_raw, {"scale": 1 / 255}, id="raw"),
    pytest.param("yolox", yolox_model, decode_yolox, {"bgr": True}, id="yolox"),
    pytest.param("objectness", objectness_model, decode_objectness, {"scale": 1 / 255}, id="objectness"),
    pytest.param("end-to-end", end_to_end_model, best, {"scale": 1 / 255}, id="end-to-end"),
    pytest.param(
        "end-to-end", partial(end_to_end_model, open_count=True), best, {"scale": 1 / 255}, id="end-to-end-open"
    ),
    pytest.param("query", query_model, decode_query, {"scale": 1 / 255}, id="query"),
    pytest.param("query", partial(query_model, opset=19), decode_query, {"scale": 1 / 255}, id="query-opset-19"),
    pytest.param("mmdeploy", mmdeploy_model, decode_mmdeploy, {"bgr": True, **IMAGENET_BGR}, id="mmdeploy"),
    pytest.param(
        "mmdeploy",
        partial(mmdeploy_model, open_count=True),
        decode_mmdeploy,
        {"bgr": True, **IMAGENET_BGR},
        id="mmdeploy-open",
    ),
]


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(("head", "make", "decode", "preparation"), HEADS)
def test_candidates_equal_the_reference_decode(tmp_path, pixels, runtime, head, make, decode, preparation):
    source = make(tmp_path / "source.onnx")
    record = adapt.adapt_file(source, tmp_path / "adapted.onnx", Overrides())
    candidates = open_runtime(runtime, tmp_path / "adapted.onnx", threads=1).detect(pixels)
    outputs = run_source(source, prepare(pixels, **preparation))

    assert record.head == head
    assert candidates.shape == (3, record.candidates, 6)
    for found, raw in zip(candidates, outputs, strict=True):
        expected = decode(*raw)
        assert np.abs(found[: len(expected)] - expected).max() < 1e-3
        assert not found[len(expected) :].any(), "rows that fill up must be zero"


@pytest.mark.parametrize("opset", [13, 17, 18, 20])
def test_every_opset_gives_the_same_candidates(tmp_path, pixels, opset):
    source = raw_model(tmp_path / "source.onnx", opset=opset)
    adapt.adapt_file(source, tmp_path / "adapted.onnx", Overrides())
    candidates = open_runtime("onnxruntime", tmp_path / "adapted.onnx", threads=1).detect(pixels)
    reference = [decode_raw(*raw) for raw in run_source(source, prepare(pixels, scale=1 / 255))]
    assert np.abs(candidates - np.stack(reference)).max() < 1e-3


def test_mean_std_and_order_go_into_the_graph(tmp_path, pixels):
    source = raw_model(tmp_path / "source.onnx")
    overrides = Overrides(order="bgr", scale=0.5, mean=(1.0, 2.0, 3.0), std=(2.0, 4.0, 8.0))
    adapt.adapt_file(source, tmp_path / "adapted.onnx", overrides)
    candidates = open_runtime("onnxruntime", tmp_path / "adapted.onnx", threads=1).detect(pixels)
    images = prepare(pixels, bgr=True, scale=0.5, mean=(1, 2, 3), std=(2, 4, 8))
    reference = [decode_raw(*raw) for raw in run_source(source, images)]
    assert np.abs(candidates - np.stack(reference)).max() < 1e-3


@pytest.mark.parametrize("make", [end_to_end_model, mmdeploy_model])
def test_a_head_that_hides_its_classes_wants_names(tmp_path, make):
    path = make(tmp_path / "source.onnx")
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, path)
    with pytest.raises(BuildError, match="--names"):
        adapt.adapt(path)
    assert adapt.read_adapted(adapt.adapt(path, Overrides(names=["only"]))).spec.class_names == ("only",)


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
    reference = decode_yolox(run_source(source, prepare(pixels, bgr=True))[0][0], 416)
    assert record.head == "yolox"
    for runtime in ("onnxruntime", "openvino"):
        candidates = open_runtime(runtime, tmp_path / "adapted.onnx", threads=2).detect(pixels)[0]
        # Random pixels score low and close together, so ranks may swap: compare what is clearly apart.
        assert np.abs(candidates[:5, 4] - reference[:5, 4]).max() < 1e-3
        assert np.abs(np.sort(candidates[:, 4]) - np.sort(reference[:, 4])).max() < 1e-3
