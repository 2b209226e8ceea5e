"""The page and the tables of a profile."""

from __future__ import annotations

from rich.console import Console

from support.profiles import fp32, int8
from triptych import report
from triptych.measure.profile_change import compare
from triptych.report.profile import group_table, kind_table, layer_table, of_profile, part_table, setting_sentence
from triptych.report.terminal import block_table


def test_the_page() -> None:
    text = report.markdown(of_profile(int8()))
    for part in (
        "# The layers of int8.onnx",
        "**19.50 ms a call: fp32 38%, int8 31%, reformats 31%**",
        "| head/Conv | Conv | fp32 |  | 7.00 | 36% ████ |",
        "| reformats | 2 | 6.00 | 31% ███ |",
        "triptych profile int8.onnx",
    ):
        assert part in text
    assert "What changed" not in text


def test_the_page_of_a_change() -> None:
    text = report.markdown(of_profile(int8(), compare(fp32(), int8())))
    for part in (
        "**int8.onnx takes 19.50 ms a call and fp32.onnx 20.00 ms: 1.03 times as fast**",
        "⚠️ why int8 is no faster: only 2 of its 3 layers",
        "| layers from fp32 to int8 | 2 to 3 | 14.00 | 6.00 | -8.00 |",
        "| **all layers** | 5 to 7 | 20.00 | 19.50 | -0.50 |",
        "| stem/Conv | Conv to QLinearConv | fp32 to int8 | 8.00 | 4.00 | -4.00 |",
    ):
        assert part in text, part
    page = report.html(of_profile(int8(), compare(fp32(), int8())))
    assert "reformats: 6.00 ms, 30.8%" in page


def test_the_setting() -> None:
    assert setting_sentence(int8()) == (
        "int8.onnx, made for int8, on onnxruntime 1.32.0: random pixels, images in a call: 1, threads: 1, calls: 50"
    )


def test_the_rest_is_one_row() -> None:
    rows = [row.cells[:-1] for row in layer_table(int8(), 2).rows]
    assert rows == [
        ["head/Conv", "Conv", "fp32", "7.00"],
        ["q1", "QuantizeLinear", "reformats", "4.00"],
        ["5 more", "", "", "8.50"],
        ["7 layers", "", "", "19.50"],
    ]
    assert kind_table(int8(), 1).rows[-1].cells[:-1] == ["5 more", "6", "12.50"]
    assert len(group_table(compare(fp32(), int8()), 2).rows) == 2


def test_on_a_terminal() -> None:
    console = Console(width=80)
    with console.capture() as shown:
        console.print(block_table(layer_table(int8(), 2), "The slowest layers"))
        console.print(block_table(part_table(compare(fp32(), int8())), "Where the difference is"))
    assert "│ head/Conv │ Conv           │ fp32      │  7.00 │       ████  36% │" in shown.get()
    assert "│ 7 layers  │                │           │ 19.50 │ ██████████ 100% │" in shown.get()
    assert "-8.00" in shown.get()
