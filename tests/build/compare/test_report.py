"""The tables of a comparison of runtimes."""

from __future__ import annotations

import pytest
from rich.console import Console

from support.comparisons import comparison
from triptych_build.compare.report import markdown, print_comparison, short


def test_the_tables_fit_in_eighty_columns(capsys: pytest.CaptureFixture[str]) -> None:
    print_comparison(comparison(("ONNX Runtime FP32", 104.52, 0.792)), Console(width=80))
    printed = capsys.readouterr().out
    assert "…" not in printed
    row = next(line for line in printed.splitlines() if "115" in line)
    assert row.split() == ["ONNX", "Runtime", "FP32", *["105", "115", "250"] * 3]
    assert "there is no GPU" in printed


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.3, "0.30"), (9.994, "9.99"), (9.996, "10.0"), (99.94, "99.9"), (99.96, "100"), (1234, "1234")],
)
def test_three_digits_count(value: float, text: str) -> None:
    assert short(value) == text


def test_markdown_says_why_a_row_is_missing() -> None:
    page = markdown(comparison(("ONNX Runtime FP32", 104.52, 0.792)))
    assert "- not here was not measured: there is no GPU" in page
    assert "| ONNX Runtime FP32 | CPU | 0.900 | 0.900 | 0.792 | 0.792 | 5.5 | 1.00 |" in page
    assert "| not here | GPU | - | - | - | - | 3.0 | - |" in page
