"""ONNX files that are read, mended or refused."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx.checker
import onnx.external_data_helper
import onnx.numpy_helper
import onnx.parser
import pytest

from support.detectors import raw_model
from triptych.contract import DetectorSpec
from triptych.errors import BuildError
from triptych.files import sha256
from triptych_build.adapt.heads import Normalization
from triptych_build.adapt.onnx_file import (
    Adapted,
    add_record,
    external_files,
    opset_of,
    read_adapted,
    read_adapted_file,
    read_onnx,
    source_sha256,
    tidied,
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no file"),
        (b"", r"not a whole ONNX model \(it has no operators\); export it again"),
        (b"GIF89a, surely no model", "not a whole ONNX model"),
        ("truncated", "not a whole ONNX model"),
    ],
)
def test_a_file_that_is_no_model_is_one_sentence(tmp_path: Path, content: bytes | str | None, message: str) -> None:
    path = tmp_path / "source.onnx"
    if isinstance(content, str):
        raw_model(path)
        path.write_bytes(path.read_bytes()[:-2000])
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(BuildError, match=message) as caught:
        read_onnx(path)
    assert "\n" not in str(caught.value)


def test_an_operator_that_reads_what_nothing_makes_is_refused(tmp_path: Path) -> None:
    path = raw_model(tmp_path / "source.onnx")
    model = onnx.load(path)
    del model.graph.node[0]
    onnx.save(model, path)
    with pytest.raises(BuildError, match="not a whole ONNX model"):
        read_onnx(path)


@pytest.mark.parametrize(
    ("kind", "domain"), [("EfficientNMS_TRT", "TRT"), ("BatchedNMS", ""), ("FusedConv", "com.microsoft")]
)
def test_operators_of_others_are_named(tmp_path: Path, kind: str, domain: str) -> None:
    path = raw_model(tmp_path / "source.onnx")
    model = onnx.load(path)
    model.graph.node.append(onnx.helper.make_node(kind, ["output0"], ["suppressed"], domain=domain))
    model.graph.output[0].name = "suppressed"
    if domain:
        model.opset_import.append(onnx.helper.make_opsetid(domain, 1))
    onnx.save(model, path)
    named = rf"operators that are not ONNX's own: {kind} \({domain or 'of no domain'}\); .*need a plugin"
    with pytest.raises(BuildError, match=named):
        read_onnx(path)


def test_an_order_that_the_checker_refuses_is_mended(tmp_path: Path) -> None:
    path = raw_model(tmp_path / "source.onnx")
    model = onnx.load(path)
    nodes = list(reversed(model.graph.node))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, path)
    with pytest.raises(onnx.checker.ValidationError, match="topologically sorted"):
        onnx.checker.check_model(model)
    assert next(node.op_type for node in read_onnx(path).graph.node) == "Conv"


def test_a_circle_is_refused_in_one_sentence(tmp_path: Path) -> None:
    path = raw_model(tmp_path / "source.onnx")
    model = onnx.load(path)
    model.graph.node[0].input[0] = "flat"
    onnx.save(model, path)
    with pytest.raises(BuildError, match=r"not a whole ONNX model \(.*cycle.*\); export it again") as caught:
        read_onnx(path)
    assert "\n" not in str(caught.value)


def test_every_operator_has_a_name_of_its_own(tmp_path: Path) -> None:
    model = onnx.load(raw_model(tmp_path / "source.onnx"))
    model.graph.node[0].name = model.graph.node[1].name = "twice"
    names = [node.name for node in tidied(model).graph.node]
    assert names[0] == "twice"
    assert all(names)
    assert len(set(names)) == len(names)


def test_what_nothing_reads_is_taken_out(tmp_path: Path) -> None:
    model = onnx.load(raw_model(tmp_path / "source.onnx"))
    unused = onnx.helper.make_node("Sigmoid", ["logits"], ["unused"])
    model.graph.node.append(unused)
    model.graph.initializer.add(name="leftover", data_type=onnx.TensorProto.FLOAT, dims=[1], float_data=[1.0])
    tidy = tidied(model)
    assert len(tidy.graph.node) == len(model.graph.node) - 1
    assert "leftover" not in {tensor.name for tensor in tidy.graph.initializer}
    assert tidied(tidy) == tidy


def test_an_old_graph_is_converted(tmp_path: Path) -> None:
    path = raw_model(tmp_path / "source.onnx", opset=13)
    model = onnx.load(path)
    model.opset_import[0].version = 12
    split = next(node for node in model.graph.node if node.op_type == "Split")
    split.attribute.append(onnx.helper.make_attribute("split", [4, 5]))
    del split.input[1]
    onnx.save(model, path)
    assert opset_of(read_onnx(path)) == 13


def test_a_record_goes_into_a_model_and_comes_out(tmp_path: Path) -> None:
    model = onnx.load(raw_model(tmp_path / "source.onnx"))
    assert read_adapted(model) is None
    spec = DetectorSpec(64, 32, ("a", "b"), "top_left", 0, 0.1, 1.0)
    normalization = Normalization("bgr", 1.0, (1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    record = Adapted("raw", "best.onnx", "0" * 64, 84, normalization, spec, 1, batch_kept=True)
    add_record(model, record)
    assert read_adapted(model) == record


def test_a_source_that_is_not_adapted_is_refused_with_the_command(tmp_path: Path) -> None:
    path = raw_model(tmp_path / "source.onnx")
    with pytest.raises(BuildError, match=r"not adapted to the contract; run `triptych adapt .*source\.onnx --out"):
        read_adapted_file(path)


def test_a_model_s_hash_is_of_its_weights_too(tmp_path: Path) -> None:
    whole = raw_model(tmp_path / "whole.onnx")
    assert source_sha256(whole) == sha256(whole)
    assert external_files(whole) == []
    split = tmp_path / "split.onnx"
    onnx.save(onnx.load(whole), split, save_as_external_data=True, location="split.data", size_threshold=0)
    assert external_files(split) == [tmp_path / "split.data"]
    before, file = source_sha256(split), sha256(split)
    data = bytearray((tmp_path / "split.data").read_bytes())
    data[100] ^= 1
    (tmp_path / "split.data").write_bytes(data)
    assert sha256(split) == file
    assert source_sha256(split) != before


def test_weights_in_attributes_and_inner_graphs_count(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]> g (float[2] x, bool b) => (float[2] y) {
            c = Constant <value = float[2] {1.0, 2.0}> ()
            z = If (b) <
                then_branch = t () => (float[2] p) { p = Constant <value = float[2] {3.0, 4.0}> () },
                else_branch = e () => (float[2] q) { q = Identity (c) }
            >
            y = Add (x, z)
        }"""
    )
    inner = model.graph.node[1].attribute[0].g.node[0].attribute[0].t
    for tensor, location in ((model.graph.node[0].attribute[0].t, "outer.bin"), (inner, "inner.bin")):
        tensor.raw_data = onnx.numpy_helper.to_array(tensor).tobytes()
        tensor.ClearField("float_data")
        onnx.external_data_helper.set_external_data(tensor, location)
        tensor.ClearField("raw_data")
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    assert external_files(tmp_path / "model.onnx") == [tmp_path / "inner.bin", tmp_path / "outer.bin"]
