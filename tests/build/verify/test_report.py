"""What the gate says: the verdict, the page and the files."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from support.reports import report
from triptych.errors import BuildError
from triptych_build.verify.drift import Drift
from triptych_build.verify.latency import Latency
from triptych_build.verify.limits import Check, Gate, cut_check, latency_check
from triptych_build.verify.report import Report, print_report, write_report

CAT = Check("AP drop of cat (points, 144 boxes)", 2.1, 1.0, "refused", (1.6, 2.6), "AP of class 0")
FEW = Check("mAP50-95 drop (points)", 0.4, 0.5, "too few", (0.2, 0.6), "map50_95", needed=90)
FINE = Check("change when sent again (images)", 0, 0, "passed")
STAGES = (
    Drift("preprocess", 0.1, "its pixels differ by 0.01 levels of 255 on average"),
    Drift("detector", 0.2, "from the same pixels it finds 40 of the source's 40 confident candidates"),
    Drift("postprocess", 52.0, "from the same candidates its boxes are up to 12.0 px off, and 2 of 40 are missing"),
)


def test_a_verdict_that_passes() -> None:
    passed = report(FINE)
    assert passed.verdict == "passed: the deployed detector is within every limit of the gate"
    unlabelled = replace(passed, truth="source")
    assert unlabelled.verdict.endswith(
        "; agreement with the source as Triptych decodes it, since there were no labels, and not accuracy"
    )
    assert "mAP" not in unlabelled.to_markdown()
    passed.raise_if_not_passed()


def test_a_verdict_without_a_stage() -> None:
    refused = report(FINE, CAT)
    assert refused.verdict == ("refused: AP drop of cat (points, 144 boxes) is 2.1 (1.6 to 2.6), the limit is 1")
    with pytest.raises(BuildError, match="refused: AP drop of cat"):
        refused.raise_if_not_passed()


def test_more_than_two_failures_are_counted() -> None:
    assert report(*[CAT] * 4).verdict.endswith("; and 2 more")


def test_too_few_images_are_no_refusal() -> None:
    few = report(FINE, FEW)
    assert few.outcome == "too few"
    assert few.verdict == (
        "too few images to tell: mAP50-95 drop (points) is 0.4 (0.2 to 0.6), the limit is 0.5. "
        "About 90 images like these would tell"
    )
    with pytest.raises(BuildError, match="too few images to tell"):
        few.raise_if_not_passed()
    assert "would tell" not in report(FEW, CAT).verdict, "one refusal is enough"


def test_of_several_numbers_of_images_the_largest_tells() -> None:
    text = report(replace(FEW, needed=3000), FEW).verdict
    assert text.endswith(". About 3000 images like these would tell")
    assert "About 90" not in text


def test_images_that_were_cut_off_are_named_where_accuracy_is_lost() -> None:
    assert report(cut_check(3, 40)).verdict.startswith("passed")
    assert report(CAT, cut_check(3, 40)).verdict.endswith(
        "In 3 of the images there is more than the detector gives: build it with more --candidates or --rows"
    )
    assert "--candidates" not in report(CAT, cut_check(0, 40)).verdict


def test_no_stage_alone_explains_it() -> None:
    text = report(CAT, stages=STAGES).verdict
    assert "look at how detection joins them. Restore model_repository/detection" in text


@pytest.mark.parametrize(
    ("graph_loss", "sentences"),
    [
        (None, ["Calibrate with more images"]),
        (0.1, ["Not the graph lost it", "on this machine (AMD EPYC)", "More calibration would not help"]),
        (
            1.5,
            [
                "The graph alone loses too much, for in plain floats the same graph loses 1.5",
                "and the runtime on this machine (AMD EPYC) the rest",
                "Calibrate with more images",
            ],
        ),
        (
            4.0,
            ["The graph itself lost it, and not the runtime", "the same graph loses 4.0", "Calibrate with more images"],
        ),
    ],
)
def test_who_lost_it(graph_loss: float | None, sentences: list[str]) -> None:
    drifts = (STAGES[0], Drift("detector", 4.1, "from the same pixels …"), STAGES[2])
    text = report(CAT, stages=drifts, drifted="detector", graph_loss=graph_loss).verdict
    assert [sentence for sentence in sentences if sentence not in text] == []


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
    text = report(CAT, stages=STAGES, drifted=drifted, precision=precision).verdict
    assert f"The stage that drifted is {drifted}, which alone loses" in text
    assert text.endswith(f". {remedy}")


def test_the_page_and_the_json(tmp_path: Path) -> None:
    refused = report(FINE, CAT, stages=STAGES, drifted="postprocess")
    write_report(refused, tmp_path / "out" / "report.json")
    stored = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (stored["passed"], stored["drifted"], stored["checks"][1]["limit"]) == (False, "postprocess", 1.0)
    page = (tmp_path / "out" / "report.md").read_text()
    assert page.startswith("# Verification: refused\n")
    assert "| AP drop of cat (points, 144 boxes) | 2.1 (1.6 to 2.6) | 1 | FAILED |" in page
    assert "| postprocess | 52.00 | from the same candidates its boxes are up to 12.0 px off" in page
    assert "| AP50-95 of cat | 70.00 | 70.00 |" in page
    assert "Measured against the labels on 40 images. Latency, one request at a time: p50 20.0 ms, p95 25.5 ms " in page
    assert "(at most 28.0 ms, of 130 requests)." in page


def test_on_a_terminal() -> None:
    console = Console(width=120, record=True, file=io.StringIO())
    print_report(report(FINE, CAT, stages=STAGES, drifted="postprocess"), console)
    text = console.export_text()
    assert "FAILED" in text
    assert "What each deployed stage costs alone" in text


def test_back_from_json_with_another_latency() -> None:
    """Accuracy is kept for the next time, and latency never."""
    refused = report(CAT, latency_check(Gate(), Latency(130, 20.0, 25.5, 28.0)), stages=STAGES, drifted="postprocess")
    assert Report.from_dict(json.loads(json.dumps(refused.to_dict()))) == refused
    limited = replace(refused, gate=Gate(p95_ms=30))
    again = limited.with_latency(Latency(130, 30.0, 40.0, 50.0))
    assert [check.outcome for check in again.checks] == ["refused", "refused"]
    assert again.latency.p95_ms == 40
