"""What one profile changed against another."""

from __future__ import annotations

from dataclasses import replace

import pytest

from support.profiles import fp32, int8, layer, profile
from triptych.errors import ContractError
from triptych.measure.profile_change import compare


def test_layers_are_matched_by_their_operators_however_they_are_fused() -> None:
    groups = {group.name: group for group in compare(fp32(), int8()).groups}
    assert set(groups) == {"stem/Conv", "neck/Conv", "head/Conv", "top"}
    stem = groups["stem/Conv"]
    assert [layer.name for layer in stem.before] == ["stem"]
    assert [layer.name for layer in stem.after] == ["stem/Conv", "stem/Relu"]
    assert (stem.precisions, stem.kinds, stem.difference_ms) == (("fp32", "int8"), "Conv to QLinearConv", -4.0)


def test_a_chain_of_shared_operators_is_one_group() -> None:
    before = profile(layer("ab", 1, stands_for="a b"), layer("cd", 2, stands_for="c d"))
    after = profile(layer("a", 1), layer("bc", 2, stands_for="b c"), layer("d", 3), model="other.onnx")
    [group] = compare(before, after).groups
    assert (len(group.before), len(group.after), group.difference_ms) == (2, 3, 3.0)


def test_the_parts_add_up_to_the_difference() -> None:
    change = compare(fp32(), int8())
    assert {part.name: (part.counts, part.before_ms, part.after_ms) for part in change.parts} == {
        "layers from fp32 to int8": ((2, 3), 14.0, 6.0),
        "reformats": ((1, 2), 0.5, 6.0),
        "layers in fp32 on both sides": ((2, 2), 5.5, 7.5),
    }
    assert change.parts[0].name == "layers from fp32 to int8", "the largest difference"
    assert sum(part.difference_ms for part in change.parts) == pytest.approx(19.5 - 20.0)


def test_why_int8_is_no_faster() -> None:
    change = compare(fp32(), int8())
    assert change.sentence == "int8.onnx takes 19.50 ms a call and fp32.onnx 20.00 ms: 1.03 times as fast"
    assert change.reasons() == [
        "why int8 is no faster: only 2 of its 3 layers with weights are in int8; those that are not have 36% of "
        "the time; reformats take 5.50 ms longer; layers in fp32 on both sides take 2.00 ms longer"
    ]
    assert [group.name for group in change.most_changed()] == ["stem/Conv", "neck/Conv", "head/Conv", "top"]


def test_no_reasons_where_it_is_faster_or_not_narrower() -> None:
    assert compare(fp32(), replace(int8(), latency_ms=10.0)).reasons() == []
    assert compare(int8(), fp32()).reasons() == []
    assert compare(replace(fp32(), precision="int8"), int8()).reasons() == []


def test_layers_of_one_side_alone() -> None:
    added = layer("made by the runtime", 1.0, stands_for="new")
    change = compare(fp32(), replace(int8(), layers=[*int8().layers, added]))
    [part] = [part for part in change.parts if "alone" in part.name]
    assert (part.name, part.counts, part.difference_ms) == ("layers of int8.onnx alone", (0, 1), 1.0)
    nameless = replace(added, operators=())
    before, after = (replace(one, layers=[*one.layers, nameless]) for one in (fp32(), int8()))
    change = compare(before, after)
    assert {part.name for part in change.parts if "alone" in part.name} == {
        "layers of fp32.onnx alone",
        "layers of int8.onnx alone",
    }, "nobody knows whether they are the same"


def test_the_sides_have_names_of_their_own() -> None:
    assert compare(fp32(), replace(fp32(), runtime="openvino")).names == (
        "fp32.onnx on onnxruntime",
        "fp32.onnx on openvino",
    )
    assert compare(fp32(), fp32()).names == ("fp32.onnx before", "fp32.onnx after")


def test_what_cannot_be_compared() -> None:
    with pytest.raises(ContractError, match=r"int8.onnx and fp32.onnx have no layer in common"):
        compare(fp32(), replace(int8(), layers=[layer("other", 1.0)]))
    with pytest.raises(ContractError, match=r"batches of 4 and fp32.onnx with 1; profile both with the same --batch"):
        compare(fp32(), replace(int8(), batch=4))
