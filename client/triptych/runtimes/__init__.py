"""One interface over every runtime that can execute an adapted detector.

The server's Python backend, the verification and the comparison of runtimes call `open_runtime(...).detect(pixels)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from triptych.cuda import Pixels
from triptych.errors import BuildError, ContractError
from triptych.packages import install_command


class RuntimeEntry(NamedTuple):
    """Where to get a runtime.

    Attributes:
        module: the module that has it.
        class_name: its class there, called with the model's path and the number of threads.
        extra: the extra of Triptych that holds its packages; empty where every installation has them.
        options: which of `precision` and `gpu` it takes; see `open_runtime`.
    """

    module: str
    class_name: str
    extra: str = ""
    options: tuple[str, ...] = ()


RUNTIMES: Mapping[str, RuntimeEntry] = {
    "onnxruntime": RuntimeEntry("triptych.runtimes.onnxruntime", "OnnxRuntime"),
    "openvino": RuntimeEntry("triptych.runtimes.openvino", "OpenVinoRuntime", options=("precision",)),
    "tensorrt": RuntimeEntry("triptych.runtimes.tensorrt", "TensorRtRuntime", "tensorrt", ("gpu",)),
}
"""All take an adapted ONNX, except `tensorrt`, which takes a plan that was built from one."""


class Runtime(Protocol):
    """A loaded detector."""

    input_shape: tuple[int, int, int]
    """Height, width and channels of one image."""

    def detect(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the candidates, float32 [N, K, 6], of pixels uint8 [N, H, W, 3]."""
        ...


def open_runtime(
    name: str,
    model: Path,
    *,
    threads: int,
    precision: str = "f32",
    gpu: int = 0,
    runtimes: Mapping[str, RuntimeEntry] = RUNTIMES,
) -> Runtime:
    """Load an adapted model.

    Args:
        name: one of `runtimes`.
        model: the adapted model's file.
        threads: how many threads one call of `detect` may use.
        precision: "f32", or what a runtime that has this option can calculate in. Others calculate as their file says.
        gpu: which of the GPUs that CUDA sees it calculates on, if it does.
        runtimes: the runtimes to choose from, by name.

    Raises:
        BuildError: there is no such runtime, it is not installed, or it cannot read the model.
    """
    if name not in runtimes:
        raise BuildError(f"there is no runtime {name!r}; choose one of {', '.join(runtimes)}")
    entry = runtimes[name]
    if precision != "f32" and "precision" not in entry.options:
        others = ", ".join(other for other, one in runtimes.items() if "precision" in one.options)
        raise BuildError(f"precision {precision!r} is an option of {others}; {name} calculates as its file says")
    given: dict[str, Any] = {"precision": precision, "gpu": gpu}
    options = {option: given[option] for option in entry.options}
    try:
        runtime: Runtime = _load_class(name, entry)(model, threads, **options)
    except ModuleNotFoundError as error:
        if not entry.extra:
            raise
        hint = install_command(entry.extra)
        raise BuildError(f"the runtime {name} is not installed ({error}); run `{hint}`") from error
    except RuntimeError as error:
        raise BuildError(f"{name} cannot read {model}: {error}") from error
    return runtime


def _load_class(name: str, entry: RuntimeEntry) -> Any:
    try:
        return getattr(import_module(entry.module), entry.class_name)
    except ModuleNotFoundError:
        raise
    except (ImportError, OSError, RuntimeError) as error:
        raise BuildError(f"the runtime {name} is installed but does not start: {error}") from error


def check_pixels(pixels: Pixels, input_shape: tuple[int, int, int]) -> None:
    """Refuse pixels that the model does not take.

    Raises:
        ContractError: their shape or type is wrong.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != input_shape:
        expected = ", ".join(str(size) for size in input_shape)
        raise ContractError(f"pixels must be uint8 (n, {expected}), but got {pixels.dtype} {pixels.shape}")
