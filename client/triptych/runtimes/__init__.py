"""One interface over every runtime that can execute an adapted detector.

The server's Python backend, the verification and the comparison of runtimes all call `open_runtime(...).detect(pixels)`.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from triptych.errors import BuildError, ContractError

INSTALL = {
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "pytorch": "torch onnx2torch",
    "torchscript": "torch onnx2torch",
    "tensorrt": "tensorrt cuda-python",
}
"""What pip installs for each runtime."""

RUNTIMES = tuple(INSTALL)
"""All take an adapted ONNX, but `tensorrt`, which takes a plan that was built from one."""


_HOMES = {"pytorch": "triptych_build.compare", "torchscript": "triptych_build.compare"}


_CLASSES = {
    "onnxruntime": "OnnxRuntime",
    "openvino": "OpenVinoRuntime",
    "pytorch": "PyTorchRuntime",
    "torchscript": "TorchScriptRuntime",
    "tensorrt": "TensorRtRuntime",
}


class Runtime(Protocol):
    """A loaded detector."""

    input_shape: tuple[int, int, int]
    """Height, width and channels of one image."""

    def detect(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Candidates float32 [N, K, 6] of pixels uint8 [N, H, W, 3]."""
        ...


def open_runtime(name: str, model: Path, *, threads: int, precision: str = "f32") -> Runtime:
    """Load an adapted model.

    Args:
        name: one of `RUNTIMES`.
        model: the adapted model's file.
        threads: threads that one call of `detect` may use.
        precision: what OpenVINO calculates in, "f32" or "bf16"; every other runtime does as its file says.

    Raises:
        BuildError: there is no such runtime, it is not installed, or it cannot read the model.
    """
    if name not in RUNTIMES:
        raise BuildError(f"there is no runtime {name!r}; choose one of {', '.join(RUNTIMES)}")
    if precision != "f32" and name != "openvino":
        raise BuildError(f"precision {precision!r} is an option of openvino; {name} calculates as its file says")
    options: dict[str, Any] = {"precision": precision} if name == "openvino" else {}
    try:
        runtime: Runtime = getattr(_module(name), _CLASSES[name])(model, threads, **options)
    except ModuleNotFoundError as error:
        raise BuildError(f"the runtime {name} is not installed ({error}); run `pip install {INSTALL[name]}`") from error
    except RuntimeError as error:
        raise BuildError(f"{name} cannot read {model}: {error}") from error
    return runtime


def _module(name: str) -> Any:
    try:
        return import_module(f"{_HOMES.get(name, 'triptych.runtimes')}.{name}")
    except ModuleNotFoundError:
        raise
    except (ImportError, OSError, RuntimeError) as error:
        raise BuildError(f"the runtime {name} is installed and does not start: {error}") from error


def check_pixels(pixels: NDArray[np.uint8], input_shape: tuple[int, int, int]) -> None:
    """Refuse pixels that the model does not take.

    Raises:
        ContractError: the shape or the type is another.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != input_shape:
        expected = ", ".join(str(size) for size in input_shape)
        raise ContractError(f"pixels must be uint8 (n, {expected}), but got {pixels.dtype} {pixels.shape}")
