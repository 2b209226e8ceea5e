"""What the gate says: the verdict, the page and the files."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from support.reports import report
from triptych.errors import BuildError
from triptych_build.verify.drift import Drift
from triptych_build.verify.limits import Check, cut_check
from triptych_build.verify.report import print_report, verdict, write_report

CAT = Check("AP drop of cat (points, 144 boxes)", 2.1, 2.0, False, 1.0, "cat")
FINE = Check("change when sent again (images)", 0, 0, True)
STAGES = (
    Drift("preprocess", 0.1, "its pixels differ by 0.01 levels of 255 on average"),
    Drift("detector", 0.2, "from the same pixels it finds 40 of the source's 40 confident candidates"),
    Drift("postprocess", 52.0, "from the same candidates its boxes are up to 12.0 px off, and 2 of 40 are missing"),
)


def test_a_verdict_that_passes() -> None:
    passed = report(FINE)
    assert passed.verdict == "passed: the deployed detector is within every limit of the gate"
    passed.raise_if_refused()


def test_a_verdict_without_a_stage() -> None:
    refused = report(FINE, CAT)
    assert refused.verdict == ("refused: AP drop of cat (points, 144 boxes) is 2.1, the limit is 1.0 + 1 chance")
    with pytest.raises(BuildError, match="refused: AP drop of cat"):
        refused.raise_if_refused()


def test_more_than_two_failures_are_counted() -> None:
    assert verdict([CAT] * 4, (), None, "fp32").endswith("; and 2 more")


def test_images_that_were_cut_off_are_named_where_accuracy_is_lost() -> None:
    assert verdict([cut_check(3, 40)], (), None, "fp32").startswith("passed")
    assert verdict([CAT, cut_check(3, 40)], (), None, "fp32").endswith(
        "In 3 of the images there is more than the detector gives: build it with more --candidates or --rows"
    )
    assert "--candidates" not in verdict([CAT, cut_check(0, 40)], (), None, "fp32")


def test_no_stage_alone_explains_it() -> None:
    assert "look at how detection joins them; restore model_repository/detection" in verdict(
        [CAT], STAGES, None, "int8"
    )


@pytest.mark.parametrize(
    ("drifted", "precision", "remedy"),
    [
        ("preprocess", "fp16", "Restore model_repository/preprocess or its options (order, placement, pad value)"),
        ("postprocess", "fp16", "Restore model_repository/postprocess"),
        ("detector", "fp32", "Publish it again from the adapted ONNX"),
        ("detector", "fp16", "Exclude layers (`--exclude`), or take the next precision up, bf16 or fp32"),
        (
            "detector",
            "int8",
            "Calibrate with more images like the ones it will get, leave sensitive layers in float (`--scan`, or "
            "`--exclude`), or take the next precision up, fp16",
        ),
    ],
)
def test_the_stage_that_drifted_and_what_to_do(drifted: str, precision: str, remedy: str) -> None:
    text = verdict([CAT], STAGES, drifted, precision)
    assert f"The stage that drifted is {drifted}, which alone loses" in text
    assert text.endswith(f". {remedy}")


def test_the_page_and_the_json(tmp_path: Path) -> None:
    refused = report(FINE, CAT, stages=STAGES, drifted="postprocess")
    write_report(refused, tmp_path / "out" / "report.json")
    stored = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (stored["passed"], stored["drifted"], stored["checks"][1]["limit"]) == (False, "postprocess", 2.0)
    page = (tmp_path / "out" / "report.md").read_text()
    assert page.startswith("# Verification: refused\n")
    assert "| AP drop of cat (points, 144 boxes) | 2.1 | 1.0 + 1 chance | FAILED |" in page
    assert "| postprocess | 52.00 | from the same candidates its boxes are up to 12.0 px off" in page
    assert "| AP50-95 of cat | 70.00 | 70.00 |" in page
    assert "Measured against the labels on 40 images. Latency, one request at a time: p50 20.0 ms" in page


def test_on_a_terminal() -> None:
    console = Console(width=120, record=True, file=io.StringIO())
    print_report(report(FINE, CAT, stages=STAGES, drifted="postprocess"), console)
    text = console.export_text()
    assert "FAILED" in text
    assert "What each deployed stage costs alone" in text
