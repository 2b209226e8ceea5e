"""int8 in OpenVINO: what Q/DQ pairs say is what it calculates, whichever int8 instructions the CPU has."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser
import openvino
import pytest
from numpy.typing import NDArray
from PIL import Image

from support import ROOT
from support.detectors import SIDE, c2f_model
from support.graphs import adapted, distance, spec_of
from triptych import machine
from triptych.machine import has_exact_int8
from triptych.runtimes import open_runtime
from triptych.runtimes._layers import PROFILED
from triptych.runtimes.openvino import OpenVinoRuntime, fuse_pairs
from triptych_build.adapt.onnx_file import read_onnx
from triptych_build.quantize.calibrate import Calibration, calibration_images, read_pixels
from triptych_build.quantize.qdq import quantized_layers
from triptych_build.quantize.quantizer import post_training
from triptych_build.quantize.sensitivity import disagreement
from triptych_build.verify.reference import plain_detector
from triptych_demo.detector.boards import generate

DETECT = """
import sys
from pathlib import Path

import numpy as np

from triptych import machine
from triptych.runtimes import open_runtime

model, pixels, features, out = sys.argv[1:]
machine.cpu_features = lambda: features
np.save(out, open_runtime("openvino", Path(model), threads=1).detect(np.load(pixels)))
"""

AT_MOST = {
    "amx": ("ALL", machine.cpu_features()),
    "avx512-vnni": ("AVX512_CORE_VNNI", machine.cpu_features()),
    "avx2": ("AVX2", "sse2 avx2"),
}
"""The instructions that OpenVINO's kernels may use at most, by oneDNN's name and as the machine's."""


@pytest.fixture(scope="module")
def pixels() -> NDArray[np.uint8]:
    return np.random.default_rng(7).integers(0, 256, (6, SIDE, SIDE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory, pixels: NDArray[np.uint8]) -> Path:
    """A detector built as YOLOv8 is, in int8."""
    directory = tmp_path_factory.mktemp("int8")
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(directory / f"{number}.png")
    path = adapted(c2f_model(directory / "source.onnx"))
    calibration = Calibration(calibration_images(directory), "max")
    onnx.save(post_training(read_onnx(path), spec_of(path), calibration).model, directory / "int8.onnx")
    return directory / "int8.onnx"


def plain(model: Path, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Calculate a graph as it is written."""
    detector = plain_detector(model)
    return np.stack([detector(image) for image in pixels])


def detect(model: Path, pixels: NDArray[np.uint8], directory: Path, kind: str) -> NDArray[np.float32]:
    """Run OpenVINO in a process of its own, which has only some of the CPU's instructions."""
    isa, features = AT_MOST[kind]
    np.save(directory / "pixels.npy", pixels)
    command = [sys.executable, "-c", DETECT, str(model), str(directory / "pixels.npy"), features]
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": isa}
    subprocess.run([*command, str(directory / "out.npy")], check=True, env=environment, cwd=ROOT, timeout=120)
    candidates: NDArray[np.float32] = np.load(directory / "out.npy")
    return candidates


def assert_same(reference: NDArray[np.float32], candidates: NDArray[np.float32]) -> None:
    """Most candidates are the same; a rounding at the very edge of a step may move those of an image a little."""
    far = distance(reference, candidates)
    assert np.median(far) < 0.001
    assert np.percentile(far, 98) < 15


@pytest.mark.parametrize("kind", AT_MOST)
def test_int8_is_what_the_graph_says(tmp_path: Path, int8: Path, pixels: NDArray[np.uint8], kind: str) -> None:
    assert_same(plain(int8, pixels), detect(int8, pixels, tmp_path, kind))


def test_onnx_runtime_says_the_same(int8: Path, pixels: NDArray[np.uint8]) -> None:
    assert_same(plain(int8, pixels), open_runtime("onnxruntime", int8, threads=1).detect(pixels))


def test_a_detector_trained_for_int8_detects_what_it_was_trained_to(tmp_path: Path) -> None:
    """Its pairs are its exporter's."""
    path = adapted(Path(shutil.copy(ROOT / "demo" / "pcb_qat.onnx", tmp_path / "source.onnx")))
    (tmp_path / "board.jpg").write_bytes(generate(1000, 0).jpeg)
    board = read_pixels([tmp_path / "board.jpg"], spec_of(path))
    assert disagreement(plain(path, board), detect(path, board, tmp_path, "avx512-vnni")) < 0.04


def test_yolox_nano_in_int8(tmp_path: Path, shared_data: Path) -> None:
    """It is fragile in int8, so that single roundings show; with wrong steps nothing is left of it (0.99)."""
    path = adapted(Path(shutil.copy(shared_data / "yolox_nano" / "yolox_nano.onnx", tmp_path / "source.onnx")))
    photographs = calibration_images(shared_data / "coco_cc" / "images")[:3]
    calibration = Calibration(photographs, "max", exclude=("Conv_44", "Conv_47", "Conv_70"))
    onnx.save(post_training(read_onnx(path), spec_of(path), calibration).model, tmp_path / "int8.onnx")
    pixels = read_pixels(photographs, spec_of(path))
    candidates = detect(tmp_path / "int8.onnx", pixels, tmp_path, "avx512-vnni")
    assert disagreement(plain(tmp_path / "int8.onnx", pixels), candidates) < 0.25


def test_every_layer_runs_in_int8(int8: Path) -> None:
    if not has_exact_int8():
        pytest.skip("this CPU has no int8 instructions that OpenVINO is given int8 for")
    layers = [layer for layer in OpenVinoRuntime(int8, threads=1).layers() if layer.kind == "Convolution"]
    assert len(layers) == len(quantized_layers(read_onnx(int8)))
    assert {layer.precision for layer in layers} == {"int8"}


PAIRS = """<ir_version: 8, opset_import: ["" : 17]> pairs (float[1, 2, 3, 3] x) =>
    (float[1, 2, 3, 3] a, float[1, 2, 3, 3] b) {
    signed = QuantizeLinear (x, scale, zero)
    y = DequantizeLinear (signed, scale, zero)
    shifted = QuantizeLinear (x, scale, hundred)
    z = DequantizeLinear (shifted, scale, hundred)
    channels = QuantizeLinear <axis = 1> (x, scales, zeros)
    w = DequantizeLinear <axis = 1> (channels, scales, zeros)
    other = DequantizeLinear (signed, twice, zero)
    yz = Add (y, z)
    a = Add (yz, w)
    b = Mul (y, other)
}"""


def test_pairs_become_one_operator_with_the_same_values() -> None:
    model = onnx.parser.parse_model(PAIRS)
    constants = {"scale": np.float32(0.1), "twice": np.float32(0.2), "zero": np.int8(0), "hundred": np.uint8(100)}
    arrays = constants | {"scales": np.array([0.1, 0.3], np.float32), "zeros": np.zeros(2, np.int8)}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in arrays.items())
    x = np.random.default_rng(1).normal(0, 8, (1, 2, 3, 3)).astype(np.float32)
    graphs = [openvino.Core().read_model(model.SerializeToString()) for _ in range(2)]
    fuse_pairs(graphs[1])
    before, after = (list(openvino.compile_model(graph, "CPU")([x]).values()) for graph in graphs)
    for one, other in zip(before, after, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    kinds = [[operator.get_type_name() for operator in graph.get_ordered_ops()] for graph in graphs]
    assert kinds[0].count("FakeQuantize") == 3
    assert kinds[1].count("FakeQuantize") == 4, "three with one number for a scale, and that for each channel"


def test_the_times_of_layers_since_the_start(int8: Path, pixels: NDArray[np.uint8]) -> None:
    runtime: Any = open_runtime("openvino", int8, threads=1, runtimes=PROFILED)
    runtime.detect(pixels)
    runtime.start()
    runtime.detect(pixels)
    times = runtime.times()
    # The means are cut to whole microseconds, before the start and after it.
    lost_ms = 0.001 * len(times.layers_ms) * 2 * len(pixels)
    assert 0 < sum(times.layers_ms.values()) <= times.ms + lost_ms
    kinds = {layer.kind for layer in times.layers_ms}
    assert "Convolution" in kinds
    assert not kinds & {"Const", "Input"}, "which are not executed"
    assert all(layer.kernel for layer in times.layers_ms)


def test_openvinos_means_become_the_time_since_the_start(int8: Path, pixels: NDArray[np.uint8]) -> None:
    runtime: Any = open_runtime("openvino", int8, threads=1, runtimes=PROFILED)
    name = next(layer.name for layer in runtime.layers() if layer.kind == "Convolution")
    means_ms = iter((10, 4))
    runtime._request = SimpleNamespace(
        infer=lambda *_, **__: None,
        get_output_tensor=lambda: SimpleNamespace(data=np.zeros((1, 1, 6))),
        get_profiling_info=lambda: [
            SimpleNamespace(node_name=name, real_time=timedelta(milliseconds=next(means_ms))),
            SimpleNamespace(node_name="not executed", real_time=timedelta(0)),
        ],
    )
    runtime.detect(pixels[:1])
    runtime.start()
    runtime.detect(pixels[:3])
    [(layer, ms)] = runtime.times().layers_ms.items()
    assert (layer.name, ms) == (name, pytest.approx(4 * 4 - 10)), "four executions of 4 ms, of which one took 10"


SIGNAL = """
import os, signal, sys
from pathlib import Path

from triptych.runtimes import open_runtime

first, second = (open_runtime("openvino", Path(sys.argv[1]), threads=1) for _ in range(2))
del first
del second
signal.signal(signal.SIGTERM, lambda *_: print("handled"))
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_signal_after_two_runtimes_are_gone(int8: Path) -> None:
    done = subprocess.run([sys.executable, "-c", SIGNAL, int8], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr
