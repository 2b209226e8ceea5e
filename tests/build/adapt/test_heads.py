"""Every head: the adapted graph against a NumPy decode of the source's own output, on the runtimes of the CPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnxruntime
import pytest
from numpy.typing import ArrayLike, NDArray

from support.detectors import (
    SIDE,
    add_constants,
    conv_model,
    crowd_model,
    end_to_end_model,
    mmdeploy_model,
    objectness_model,
    query_model,
    raw_model,
    yolox_model,
)
from triptych.cli.adapt import Head as HeadName
from triptych.errors import BuildError
from triptych.runtimes import open_runtime
from triptych_build.adapt.adapter import Overrides, adapt, adapt_file
from triptych_build.adapt.heads import HEADS, Source, head_named
from triptych_build.adapt.heads.table import grid

Array = NDArray[Any]


def run_source(path: Path, images: Array) -> list[list[Array]]:
    """The source's own outputs, image by image, for images float32 [N, 3, H, W]."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return [[output[0] for output in session.run(None, {name: image[None]})] for image in images]


def prepare(pixels: Array, *, bgr: bool = False, scale: float = 1.0, mean: ArrayLike = 0, std: ArrayLike = 1) -> Array:
    """Pixels uint8 [N, H, W, 3] to float32 [N, 3, H, W], the long way in NumPy."""
    images = pixels[..., ::-1] if bgr else pixels
    normalized: Array = (images.astype(np.float64) * scale - np.array(mean)) / np.array(std)
    return normalized.transpose(0, 3, 1, 2).astype(np.float32)


def top(boxes_xyxy: Array, scores: Array) -> Array:
    """Reference candidates of one image: boxes [A, 4], scores [A, C] to rows [A, 6], best first."""
    return best(np.column_stack([boxes_xyxy, scores.max(1), scores.argmax(1)]))


def best(rows: Array) -> Array:
    """Rows [A, 6] by falling score."""
    return rows[np.argsort(-rows[:, 4], kind="stable")]


def corners(center: Array, size: Array) -> Array:
    return np.hstack([center - size / 2, center + size / 2])


def decode_raw(output: Array) -> Array:
    return top(corners(output[:2].T, output[2:4].T), output[4:].T)


def decode_objectness(output: Array) -> Array:
    return top(corners(output[:, :2], output[:, 2:4]), output[:, 4:5] * output[:, 5:])


def decode_yolox(output: Array, side: int = SIDE) -> Array:
    rows, start = [], 0
    for stride in (8, 16, 32):
        for y in range(side // stride):
            for x in range(side // stride):
                dx, dy, log_w, log_h, *scores = output[start]
                center = (dx + x) * stride, (dy + y) * stride
                rows.append([*center, np.exp(log_w) * stride, np.exp(log_h) * stride, *scores])
                start += 1
    return decode_objectness(np.array(rows))


def decode_query(logits: Array, boxes: Array) -> Array:
    """Every pair of query and class is a candidate, as in DETR and its descendants."""
    queries, classes = logits.shape
    scores = 1 / (1 + np.exp(-logits.astype(np.float64)))
    xyxy = corners(boxes[:, :2], boxes[:, 2:]) * SIDE
    rows = np.column_stack([np.repeat(xyxy, classes, 0), scores.ravel(), np.tile(np.arange(classes), queries)])
    return best(rows)


def decode_mmdeploy(dets: Array, labels: Array) -> Array:
    return best(np.column_stack([dets, labels]))


IMAGENET_BGR = {"mean": (103.53, 116.28, 123.675), "std": (57.375, 57.12, 58.395)}

CASES = [
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


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(("head", "make", "decode", "preparation"), CASES)
def test_candidates_equal_the_reference_decode(
    tmp_path: Path,
    pixels: NDArray[np.uint8],
    runtime: str,
    head: str,
    make: Callable[[Path], Path],
    decode: Callable[..., Array],
    preparation: dict[str, Any],
) -> None:
    source = make(tmp_path / "source.onnx")
    record = adapt_file(source, tmp_path / "adapted.onnx")
    candidates = open_runtime(runtime, tmp_path / "adapted.onnx", threads=1).detect(pixels)
    outputs = run_source(source, prepare(pixels, **preparation))

    assert record.head == head
    assert candidates.shape == (3, record.candidates, 6)
    for rows, raw in zip(candidates, outputs, strict=True):
        expected = decode(*raw)[: record.candidates]
        assert np.abs(rows[: len(expected)] - expected).max() < 1e-3
        assert not rows[len(expected) :].any(), "rows that fill up must be zero"


@pytest.mark.parametrize(
    ("make", "asked", "given"),
    [
        (crowd_model, None, 1000),
        (crowd_model, 300, 300),
        (crowd_model, 5000, 1500),
        (query_model, None, 300),
        (query_model, 310, 310),
        (partial(end_to_end_model, open_count=True), None, 300),
        (partial(end_to_end_model, open_count=True), 50, 50),
    ],
)
def test_how_many_candidates_leave(
    tmp_path: Path, pixels: NDArray[np.uint8], make: Callable[[Path], Path], asked: int | None, given: int
) -> None:
    record = adapt_file(make(tmp_path / "source.onnx"), tmp_path / "adapted.onnx", Overrides(candidates=asked))
    runtime = open_runtime("onnxruntime", tmp_path / "adapted.onnx", threads=1)
    shape = (1, record.spec.height, record.spec.width, 3)
    assert record.candidates == runtime.detect(np.zeros(shape, np.uint8)).shape[1] == given


@pytest.mark.parametrize("opset", [13, 17, 18, 20])
def test_every_opset_gives_the_same_candidates(tmp_path: Path, pixels: NDArray[np.uint8], opset: int) -> None:
    source = raw_model(tmp_path / "source.onnx", opset=opset)
    adapt_file(source, tmp_path / "adapted.onnx")
    candidates = open_runtime("onnxruntime", tmp_path / "adapted.onnx", threads=1).detect(pixels)
    reference = [decode_raw(*raw) for raw in run_source(source, prepare(pixels, scale=1 / 255))]
    assert np.abs(candidates - np.stack(reference)).max() < 1e-3


def test_mean_std_and_order_are_those_that_are_asked_for(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    source = raw_model(tmp_path / "source.onnx")
    overrides = Overrides(order="bgr", scale=0.5, mean=(1.0, 2.0, 3.0), std=(2.0, 4.0, 8.0))
    adapt_file(source, tmp_path / "adapted.onnx", overrides)
    candidates = open_runtime("onnxruntime", tmp_path / "adapted.onnx", threads=1).detect(pixels)
    images = prepare(pixels, bgr=True, scale=0.5, mean=(1, 2, 3), std=(2, 4, 8))
    reference = [decode_raw(*raw) for raw in run_source(source, images)]
    assert np.abs(candidates - np.stack(reference)).max() < 1e-3


def test_yolox_grid_is_in_the_order_of_its_output() -> None:
    cells = grid(Source((), 64, 32, 17), (8, 16, 32))
    assert cells.shape == (8 * 4 + 4 * 2 + 2 * 1, 3)
    assert cells[:2].tolist() == [[0, 0, 8], [1, 0, 8]]
    assert cells[8].tolist() == [0, 1, 8]
    assert cells[-1].tolist() == [1, 0, 32]


def test_a_head_by_its_name() -> None:
    assert [head.name for head in HEADS] == list(get_args(HeadName))
    with pytest.raises(BuildError, match="there is no head 'yolo'; choose one of end-to-end, yolox, objectness"):
        head_named("yolo", Source((), 64, 64, 17))


def test_an_unsupported_head_is_described_next_to_the_supported_ones(tmp_path: Path) -> None:
    body = """flat = Reshape (cells, flat_shape)
        output0 = ReduceMax <axes = [1], keepdims = 0> (flat)"""
    add_constants(conv_model(tmp_path / "source.onnx", body, "N, 7", 7), flat_shape=np.array([0, -1, 7]))
    with pytest.raises(BuildError, match=r"output0 \[., 7\], and no supported head matches them; .*yolox.*raw"):
        adapt(tmp_path / "source.onnx")


def test_real_yolox_nano(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "yolox_nano" / "yolox_nano.onnx"
    pixels = np.random.default_rng(1).integers(0, 256, (1, 416, 416, 3), dtype=np.uint8)
    record = adapt_file(source, tmp_path / "adapted.onnx")
    reference = decode_yolox(run_source(source, prepare(pixels, bgr=True))[0][0], 416)[:1000]
    assert record.head == "yolox"
    for runtime in ("onnxruntime", "openvino"):
        candidates = open_runtime(runtime, tmp_path / "adapted.onnx", threads=2).detect(pixels)[0]
        # Random pixels score low and close together, so ranks may swap: compare what is clearly apart.
        assert np.abs(candidates[:5, 4] - reference[:5, 4]).max() < 1e-3
        assert np.abs(np.sort(candidates[:, 4]) - np.sort(reference[:, 4])).max() < 1e-3
