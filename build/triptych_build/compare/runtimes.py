"""The runtimes that can be compared: the ones of the server, PyTorch and TorchScript."""

from __future__ import annotations

from collections.abc import Mapping

from triptych import runtimes
from triptych.runtimes import RuntimeEntry

PYTORCH = RuntimeEntry("triptych_build.compare.pytorch", "PyTorchRuntime", "torch")
TORCHSCRIPT = RuntimeEntry("triptych_build.compare.torchscript", "TorchScriptRuntime", "torch")

RUNTIMES: Mapping[str, RuntimeEntry] = {
    **runtimes.RUNTIMES,
    "pytorch": PYTORCH,
    "torchscript": TORCHSCRIPT,
    "pytorch-gpu": PYTORCH._replace(options=("precision", "gpu")),
    "torchscript-gpu": TORCHSCRIPT._replace(options=("precision", "gpu")),
}
"""What `triptych.runtimes.open_runtime` takes as `runtimes`."""
