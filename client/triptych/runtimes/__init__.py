"""One interface over every runtime that can execute an adapted detector.

The server's Python backend, the verification and the comparison of runtimes all call `load(...).detect(pixels)`.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from triptych.errors import BuildError, ContractError

RUNTIMES = ("onnxruntime", "openvino")


class Runtime(Protocol):
    """A loaded detector."""

    input_shape: tuple[int, int, int]
    """Height, width and channels of one image."""

    def detect(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Candidates float32 [N, K, 6] of pixels uint8 [N, H, W, 3]."""
        ...


def load(name: str, model: Path, *, threads: int) -> Runtime:
    """Load an adapted model.

    Args:
        name: one of `RUNTIMES`.
        model: the adapted model's file.
        threads: threads that one call of `detect` may use.

    Raises:
        BuildError: there is no such runtime, it is not installed, or it cannot read the model.
    """
    if name not in RUNTIMES:
        raise BuildError(f"there is no runtime {name!r}; choose one of {', '.join(RUNTIMES)}")
    try:
        runtime: Runtime = import_module(f"triptych.runtimes.{name}").Loaded(model, threads)
    except ModuleNotFoundError as error:
        raise BuildError(f"the runtime {name} is not installed ({error}); run `pip install {name}`") from error
    except RuntimeError as error:
        raise BuildError(f"{name} cannot read {model}: {error}") from error
    return runtime


def check_pixels(pixels: NDArray[np.uint8], input_shape: tuple[int, int, int]) -> None:
    """Refuse pixels that the model does not take.

    Raises:
        ContractError: the shape or the type is another.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != input_shape:
        expected = ", ".join(str(size) for size in input_shape)
        raise ContractError(f"pixels must be uint8 (n, {expected}), but got {pixels.dtype} {pixels.shape}")
