"""Every layout that exporters give: recognised, and its candidates against a decode that knows nothing of heads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from support.families import FAMILIES, SIDE, Family
from triptych.runtimes import open_runtime
from triptych_build.adapt.adapter import Overrides, adapt, adapt_file
from triptych_build.tensorrt.network import library

PARAMETERS = [pytest.param(family, id=family.name) for family in FAMILIES]


def decoded(family: Family, source: Path, pixels: NDArray[np.uint8]) -> list[NDArray[Any]]:
    """What the source's own outputs mean, image by image."""
    session = onnxruntime.InferenceSession(str(source), providers=["CPUExecutionProvider"])
    others = {value.name: np.array([[SIDE, SIDE]]) for value in session.get_inputs()[1:]}
    preparation = {"bgr": False, "scale": 1.0, "mean": 0, "std": 1} | family.preparation
    images = pixels[..., ::-1] if preparation["bgr"] else pixels
    floats = (images * preparation["scale"] - np.array(preparation["mean"])) / np.array(preparation["std"])
    rows = []
    for image in floats.transpose(0, 3, 1, 2).astype(np.float32):
        outputs = session.run(None, {"images": image[None], **others})
        rows.append(family.decode(*(output if family.is_list else output[0] for output in outputs)))
    return rows


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("family", PARAMETERS)
def test_a_family(tmp_path: Path, pixels: NDArray[np.uint8], family: Family, runtime: str) -> None:
    source = family.make(tmp_path / "source.onnx")
    names = None if family.names else [str(number) for number in range(family.classes)]
    record = adapt_file(source, tmp_path / "adapted.onnx", Overrides(names=names))
    candidates = open_runtime(runtime, tmp_path / "adapted.onnx", threads=1).detect(pixels)
    assert record.head == family.head
    for rows, expected in zip(candidates, decoded(family, source, pixels), strict=True):
        count = min(len(expected), record.candidates)
        assert np.abs(rows[:count] - expected[:count]).max() < 1e-3
        assert not rows[count:].any(), "rows that fill up must be zero"


@pytest.mark.parametrize("family", PARAMETERS)
def test_a_family_in_tensorrt(tmp_path: Path, family: Family) -> None:
    """The parser of TensorRT for RTX takes the whole graph, tail included; it needs no GPU."""
    pytest.importorskip("tensorrt_rtx_libs", exc_type=ImportError)
    names = None if family.names else [str(number) for number in range(family.classes)]
    adapted = adapt(family.make(tmp_path / "source.onnx"), Overrides(names=names))
    trt = library("tensorrt-rtx")
    logger = trt.Logger(trt.Logger.ERROR)
    network = trt.Builder(logger).create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(adapted.SerializeToString()), parser.get_error(0)
    assert [network.get_output(at).name for at in range(network.num_outputs)] == ["candidates"]
