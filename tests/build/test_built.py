"""The sentences on what was built: refusals, and whether int8 is worth it."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from triptych_build.built import Built, refusal, remarks
from triptych_build.publish.layers import Layers
from triptych_build.verify.latency import Latency


def verified(precision: str, *, p50_ms: float = 10, map50_95: float = 0.8, verdict: str = "passed: fine") -> Built:
    report: dict[str, Any] = {
        "passed": verdict.startswith("passed"),
        "verdict": verdict,
        "latency": asdict(Latency(130, p50_ms, 2 * p50_ms, 3 * p50_ms)),
        "deployed": {"map50_95": map50_95},
    }
    return Built(precision, Path(__file__), None, report)


def test_nothing_refused() -> None:
    assert refusal([verified("fp32"), Built("fp16", Path(__file__), None)], force=False) == ""


def test_each_refusal_with_its_reason() -> None:
    built = [
        verified("fp32"),
        verified("fp16", verdict="refused: p95 latency (ms) is 9, the limit is 5"),
        verified("int8", verdict="refused: mAP50-95 drop (points) is 3, the limit is 1"),
    ]
    assert refusal(built, force=False) == (
        "fp16 was not published: p95 latency (ms) is 9, the limit is 5; "
        "int8 was not published: mAP50-95 drop (points) is 3, the limit is 1"
    )
    assert refusal(built[:2], force=True).startswith("fp16 was published all the same, as --force says: p95 latency")


def layers(int8: int, floats: int) -> Layers:
    rows = [{"name": f"conv{n}", "kind": "Convolution", "precision": "int8" if n < int8 else "fp32"} for n in range(9)]
    return Layers("openvino", (*rows[: int8 + floats], {"name": "add", "kind": "Eltwise", "precision": "fp32"}))


def test_int8_that_is_worth_it() -> None:
    fast = verified("int8", p50_ms=5, map50_95=0.797)
    assert remarks([verified("fp32"), verified("fp16"), fast]) == []
    assert remarks([fast]) == []
    assert remarks([verified("fp32")]) == []


def test_int8_that_is_not() -> None:
    slow = replace(verified("int8", p50_ms=11, map50_95=0.78), layers=layers(5, 4))
    assert remarks([verified("fp16"), slow]) == [
        "int8 (11.0 ms) is no faster here than fp16 (10.0 ms): serve fp16; 4 of its 9 layers with weights run in "
        "floats: conv5, conv6, conv7 and 1 more",
        "int8 costs 2.00 points of mAP50-95 against fp16: more calibration images, --scan or --exclude may win them "
        "back",
    ]
    slow = replace(verified("int8", p50_ms=11), layers=layers(3, 0))
    assert remarks([verified("fp32", p50_ms=9), verified("fp16"), slow]) == [
        "int8 (11.0 ms) is no faster here than fp16 (10.0 ms) and fp32 (9.0 ms): serve fp32; all its 3 layers with "
        "weights run in int8",
    ]


def test_int8_that_is_no_smaller(tmp_path: Path) -> None:
    files = {precision: tmp_path / f"{precision}.onnx" for precision in ("fp32", "int8")}
    for path in files.values():
        path.write_bytes(bytes(1000))
    built = [Built(precision, path, None) for precision, path in files.items()]
    (sentence,) = remarks(built)
    assert sentence.startswith("int8 is no smaller on disk than fp32: its weights stay in float32")
    files["int8"].write_bytes(bytes(300))
    assert remarks(built) == []


def test_as_plain_values(tmp_path: Path) -> None:
    built = verified("fp16")
    built.version = tmp_path / "7"
    assert built.to_dict() == {
        "precision": "fp16",
        "version": 7,
        "directory": str(tmp_path / "7"),
        "megabytes": Path(__file__).stat().st_size / 1e6,
        "map50_95": 80.0,
        "latency": asdict(Latency(130, 10, 20, 30)),
        "passed": True,
        "verdict": "passed: fine",
    }
    plain = Built("fp32", Path(__file__), None).to_dict()
    assert [plain[key] for key in ("version", "map50_95", "latency", "passed", "verdict")] == [None] * 5
