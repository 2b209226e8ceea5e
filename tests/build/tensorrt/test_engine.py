"""TensorRT plans. TensorRT for RTX builds them here, on a machine without a GPU, so that its half is tested for real.

What needs a GPU cannot run here: TensorRT itself (its builder starts on a GPU alone), hence the flags that stand for
the precision in TensorRT 8, workspace, timing cache, hardware compatibility, DLA, and the engine inspector's layers.
`tests/gpu/test_tensorrt.py` builds, opens and runs plans where there is a GPU. A plan cannot be opened here either:
the tests look at its record, its size and its header.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from support import ROOT
from support.detectors import HEADS, SIDE, raw_model, yolox_model
from triptych.errors import BuildError
from triptych_build.adapt.adapter import Overrides, adapt_file
from triptych_build.adapt.names import read_names
from triptych_build.adapt.onnx_file import read_adapted, read_onnx
from triptych_build.quantize.calibrate import Calibration
from triptych_build.quantize.qdq import quantizable_layers
from triptych_build.quantize.quantizer import quantize_file
from triptych_build.tensorrt import engine
from triptych_build.tensorrt.options import Options, Profile
from triptych_build.tensorrt.plan import Binding, Engine, Record, read_record, record_path
from triptych_demo.detector.boards import generate

DEMO = ROOT / "demo"
HELD_OUT_SEED = 1000

RTX = Options(builder="tensorrt-rtx")


@pytest.fixture(scope="module")
def rtx() -> None:
    pytest.importorskip("tensorrt_rtx_libs", exc_type=ImportError)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demo") / "adapted.onnx"
    adapt_file(DEMO / "pcb.onnx", path)
    return path


def layers_of(path: Path) -> list[str]:
    return quantizable_layers(read_onnx(path))


@pytest.fixture(scope="module")
def demo_int8(demo: Path) -> Path:
    """Quantized on four boards; one layer stays in float."""
    images = []
    for index in range(4):
        images.append(demo.with_name(f"board_{index}.jpg"))
        images[-1].write_bytes(generate(HELD_OUT_SEED, index).jpeg)
    path = demo.with_name("int8.onnx")
    quantize_file(demo, path, "int8", Calibration(tuple(images), "max", exclude=(layers_of(demo)[10],)))
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The raw head, adapted: builds in a tenth of a second."""
    directory = tmp_path_factory.mktemp("small")
    adapt_file(raw_model(directory / "source.onnx"), directory / "adapted.onnx")
    return directory / "adapted.onnx"


def check_plan(out: Path, built: Engine) -> Record:
    """A plan lies on the disk whole, and its record says what `build` gave back."""
    plan = out.read_bytes()
    assert len(plan) == built.plan_bytes > 100_000
    assert plan[4:8] == bytes(4) or plan[:4] == b"vtrt"
    assert len(set(plan[:4096])) > 16, "a plan is no run of zeros"
    record = read_record(out)
    assert record.engine == built
    assert sum(built.layers.values()) == len(record.layers)
    assert sorted(path.name for path in out.parent.iterdir()) == sorted([out.name, f"{out.name}.json"])
    return record


def convolutions(record: Record) -> list[str]:
    return [layer["precision"] for layer in record.layers if layer["kind"] == "convolution"]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "plans").mkdir()
    return tmp_path / "plans" / "model.plan"


# --- plans of TensorRT for RTX ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_the_demo(demo: Path, out: Path, precision: str) -> None:
    built = engine.build(demo, precision, out, RTX)
    record = check_plan(out, built)
    assert record.adapted == read_adapted(onnx.load(demo))
    assert (built.builder, built.precision, built.layers_from) == ("tensorrt-rtx", precision, "network")
    assert built.inputs == (Binding("pixels", "uint8", (-1, 640, 640, 3)),)
    assert built.outputs == (Binding("candidates", "float32", (-1, 1000, 6)),)
    assert built.profiles == (Profile(1, 8, 16),)
    assert (built.compute_capabilities, built.gpu, built.driver) == (("8.9",), None, None)
    assert convolutions(record) == [precision] * 68
    assert set(built.layers) == {"fp32", precision}


@pytest.mark.usefixtures("rtx")
def test_the_demo_in_int8(demo: Path, demo_int8: Path, out: Path) -> None:
    """The first layer too, which reads what our own front made; what is not quantized runs in fp16."""
    built = engine.build(demo_int8, "int8", out, RTX)
    precisions = {
        layer["name"]: layer["precision"] for layer in check_plan(out, built).layers if layer["kind"] == "convolution"
    }
    layers = layers_of(demo)
    assert precisions == dict.fromkeys(layers, "int8") | {layers[10]: "fp16"}
    assert set(built.layers) == {"fp32", "fp16", "int8"}
    assert built.layers["int8"] == 67, "a Q/DQ pair is fused with its layer, and no layer of its own"
    assert (built.inputs[0].dtype, built.outputs[0].dtype) == ("uint8", "float32")


@pytest.mark.usefixtures("rtx")
def test_a_detector_trained_for_int8(tmp_path: Path, out: Path) -> None:
    adapt_file(DEMO / "pcb_qat.onnx", tmp_path / "adapted.onnx")
    built = engine.build(tmp_path / "adapted.onnx", "int8", out, RTX)
    assert convolutions(check_plan(out, built)) == ["int8"] * 68


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("make", HEADS)
def test_every_head(tmp_path: Path, out: Path, make: Callable[[Path], Path], precision: str) -> None:
    path = tmp_path / "adapted.onnx"
    record = adapt_file(make(tmp_path / "source.onnx"), path)
    built = engine.build(path, precision, out, RTX)
    assert convolutions(check_plan(out, built)) == [precision]
    assert built.inputs == (Binding("pixels", "uint8", (-1, SIDE, SIDE, 3)),)
    assert built.outputs == (Binding("candidates", "float32", (-1, record.candidates, 6)),)


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_yolox_nano_whose_batch_was_fixed(tmp_path: Path, out: Path, shared_data: Path, precision: str) -> None:
    names = read_names(shared_data / "yolox_nano" / "coco_classes.txt")
    source = shared_data / "yolox_nano" / "yolox_nano.onnx"
    record = adapt_file(source, tmp_path / "adapted.onnx", Overrides(names=names))
    assert record.source_batch == 1
    built = engine.build(tmp_path / "adapted.onnx", precision, out, RTX)
    check_plan(out, built)
    assert built.inputs == (Binding("pixels", "uint8", (-1, 416, 416, 3)),)
    assert built.outputs == (Binding("candidates", "float32", (-1, record.candidates, 6)),)


@pytest.mark.usefixtures("rtx")
def test_half_the_precision_is_a_smaller_plan(demo: Path, tmp_path: Path) -> None:
    sizes = [engine.build(demo, name, tmp_path / f"{name}.plan", RTX).plan_bytes for name in ("fp16", "fp32")]
    assert sizes[0] < 0.8 * sizes[1]


@pytest.mark.usefixtures("rtx")
def test_several_profiles(small: Path, out: Path) -> None:
    profiles = Profile(1, 1, 1), Profile(1, 8, 16)
    built = engine.build(small, "fp16", out, replace(RTX, profiles=profiles))
    check_plan(out, built)
    assert built.profiles == profiles
    assert built.inputs[0].shape == (-1, SIDE, SIDE, 3)
    assert not built.is_fixed
    assert built.largest_batch == 16


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("size", [1, 4])
def test_a_fixed_batch_makes_static_shapes(small: Path, out: Path, size: int) -> None:
    built = engine.build(small, "fp32", out, replace(RTX, profiles=(Profile(size, size, size),)))
    check_plan(out, built)
    assert built.inputs[0].shape == (size, SIDE, SIDE, 3)
    assert built.outputs[0].shape == (size, 64, 6)
    assert built.is_fixed


@pytest.mark.usefixtures("rtx")
def test_a_graph_of_one_batch_size_wants_that_one(tmp_path: Path, out: Path) -> None:
    path = tmp_path / "fixed.onnx"
    adapt_file(yolox_model(tmp_path / "source.onnx"), path, Overrides(keep_batch=True))
    with pytest.raises(BuildError, match="fixed batch of 1, but the profiles ask for 1,8,16"):
        engine.build(path, "fp32", out, RTX)
    assert not list(out.parent.iterdir())
    built = engine.build(path, "fp32", out, replace(RTX, profiles=(Profile(1, 1, 1),)))
    assert built.inputs[0].shape == (1, SIDE, SIDE, 3)


@pytest.mark.usefixtures("rtx")
def test_several_compute_capabilities(small: Path, out: Path) -> None:
    capabilities = ("8.6", "8.9", "12.0")
    built = engine.build(small, "fp16", out, replace(RTX, compute_capabilities=capabilities))
    check_plan(out, built)
    assert built.compute_capabilities == capabilities


@pytest.mark.usefixtures("rtx")
def test_an_fp16_graph_is_taken_as_it_is(small: Path, tmp_path: Path, out: Path) -> None:
    quantize_file(small, tmp_path / "fp16.onnx", "fp16")
    built = engine.build(tmp_path / "fp16.onnx", "fp16", out, RTX)
    assert convolutions(check_plan(out, built)) == ["fp16"]


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("capabilities", [("1.0",), ("8.9", "x")], ids=str)
def test_a_compute_capability_that_is_none(small: Path, out: Path, capabilities: tuple[str, ...]) -> None:
    with pytest.raises(BuildError, match=f"does not build for compute capability {capabilities[-1]}"):
        engine.build(small, "fp32", out, replace(RTX, compute_capabilities=capabilities))
    assert not list(out.parent.iterdir())


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize(
    ("precision", "message"),
    [
        ("int8", r"has no Q/DQ pairs; make them first: `triptych quantize"),
        ("source", "is not adapted to the contract"),
    ],
)
def test_a_graph_that_does_not_suit(small: Path, out: Path, precision: str, message: str) -> None:
    graph = small.with_name("source.onnx") if precision == "source" else small
    with pytest.raises(BuildError, match=message):
        engine.build(graph, "fp32" if precision == "source" else precision, out, RTX)
    assert not list(out.parent.iterdir())


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_a_quantized_graph_is_for_int8_alone(demo_int8: Path, out: Path, precision: str) -> None:
    with pytest.raises(BuildError, match=r"is quantized already .*--precision int8"):
        engine.build(demo_int8, precision, out, RTX)
    assert not list(out.parent.iterdir())


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_operator_that_tensorrt_does_not_know(small: Path, tmp_path: Path, out: Path, precision: str) -> None:
    model = onnx.load(small)
    next(node for node in model.graph.node if node.op_type == "Sigmoid").op_type = "Bernoulli"
    onnx.save(model, tmp_path / "random.onnx")
    with pytest.raises(BuildError, match=rf"tensorrt-rtx .* does not take the graph in {precision}: .+"):
        engine.build(tmp_path / "random.onnx", precision, out, RTX)
    assert not list(out.parent.iterdir())


@pytest.mark.usefixtures("rtx")
def test_a_plan_is_never_left_without_its_record(small: Path, out: Path) -> None:
    record_path(out).mkdir()
    (record_path(out) / "in the way").touch()
    with pytest.raises((BuildError, OSError)):
        engine.build(small, "fp32", out, RTX)
    assert [path.name for path in out.parent.iterdir()] == [f"{out.name}.json"]


@pytest.mark.skipif(importlib.util.find_spec("tensorrt") is not None, reason="TensorRT is installed")
def test_tensorrt_that_is_not_installed(small: Path, out: Path) -> None:
    with pytest.raises(BuildError, match=r"tensorrt is not installed \(.*\); run `pip install .*'tensorrt<"):
        engine.build(small, "fp32", out, Options())
    assert not list(out.parent.iterdir())


@pytest.mark.usefixtures("rtx")
def test_a_plan_without_one_layer_in_its_precision_is_refused(
    tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT 11 takes the precision from the graph alone: one that stayed float32 would build without a word."""
    monkeypatch.setattr("triptych_build.tensorrt.network.narrow", lambda model, _precision: model)
    with pytest.raises(BuildError, match=r"tensorrt-rtx .* built no layer of .* in fp16 \(\d+ fp32\); .* build fp32"):
        engine.build(small, "fp16", tmp_path / "model.plan", RTX)
    assert not list(tmp_path.iterdir())
