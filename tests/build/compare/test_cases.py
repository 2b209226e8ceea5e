"""Which rows a comparison of runtimes has, and how its frames are shared out."""

from __future__ import annotations

from pathlib import Path

import pytest

from triptych.errors import BuildError
from triptych_build.compare.cases import Trial, list_cases

MODEL = Path("adapted.onnx")


def test_all_rows(tmp_path: Path) -> None:
    plan = tmp_path / "model.plan"
    plan.write_bytes(b"plan")
    assert [case.label for case in list_cases(MODEL, Path("int8.onnx"), [("TensorRT FP16", plan)])] == [
        "PyTorch FP32",
        "TorchScript FP32",
        "ONNX Runtime FP32",
        "OpenVINO FP32",
        "OpenVINO BF16",
        "ONNX Runtime INT8",
        "OpenVINO INT8",
        "TensorRT FP16",
    ]


def test_torch_is_compared_on_the_gpu_too_where_there_is_one() -> None:
    torch = "pytorch", "torchscript", "pytorch-gpu", "torchscript-gpu"
    assert [(case.label, case.device, case.precision) for case in list_cases(MODEL, runtimes=torch, has_gpu=True)] == [
        ("PyTorch FP32", "CPU", "f32"),
        ("TorchScript FP32", "CPU", "f32"),
        ("PyTorch FP32, GPU", "GPU", "f32"),
        ("PyTorch FP16, GPU", "GPU", "f16"),
        ("TorchScript FP32, GPU", "GPU", "f32"),
        ("TorchScript FP16, GPU", "GPU", "f16"),
    ]


def test_only_some_runtimes() -> None:
    assert [case.label for case in list_cases(MODEL, runtimes=("openvino",))] == ["OpenVINO FP32", "OpenVINO BF16"]


def test_what_cannot_be_a_row() -> None:
    with pytest.raises(BuildError, match=r"there is no plan nowhere\.plan"):
        list_cases(MODEL, plans=[("A", Path("nowhere.plan"))])
    with pytest.raises(BuildError, match="two rows would be called 'OpenVINO FP32'"):
        list_cases(MODEL, plans=[("OpenVINO FP32", Path("x"))])
    with pytest.raises(BuildError, match="tensorrt needs a plan"):
        list_cases(MODEL, runtimes=("tensorrt",))
    with pytest.raises(BuildError, match="ends in -gpu an NVIDIA GPU"):
        list_cases(MODEL, runtimes=("pytorch-gpu",))


@pytest.mark.parametrize(
    ("threads", "frames", "rounds", "message"),
    [
        (1, 11, 5, "--frames must be even and at least two for each of the 5 rounds, but got 11"),
        (1, 4, 5, "--frames must be even and at least two for each of the 5 rounds, but got 4"),
        (0, 250, 5, "must be at least 1, but got 0 and 5"),
    ],
)
def test_a_trial_that_is_none(threads: int, frames: int, rounds: int, message: str) -> None:
    with pytest.raises(BuildError, match=message):
        Trial(threads, frames, rounds)


def test_frames_are_shared_out_evenly_and_entirely() -> None:
    trial = Trial(threads=1, frames=250, rounds=4)
    shares = [trial.frames_of(number) for number in range(4)]
    assert shares == [64, 62, 62, 62]
