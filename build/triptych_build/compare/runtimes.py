"""The runtimes that can be compared: the ones of the server, PyTorch and TorchScript."""

from __future__ import annotations

from collections.abc import Mapping

from triptych import runtimes
from triptych.runtimes import RuntimeEntry

RUNTIMES: Mapping[str, RuntimeEntry] = {
    **runtimes.RUNTIMES,
    "pytorch": RuntimeEntry("triptych_build.compare.pytorch", "PyTorchRuntime", "torch"),
    "torchscript": RuntimeEntry("triptych_build.compare.torchscript", "TorchScriptRuntime", "torch"),
    "pytorch-gpu": RuntimeEntry("triptych_build.compare.pytorch", "on_gpu", "torch", ("precision", "gpu")),
    "torchscript-gpu": RuntimeEntry("triptych_build.compare.torchscript", "on_gpu", "torch", ("precision", "gpu")),
}
"""What `triptych.runtimes.open_runtime` takes as `runtimes`."""
