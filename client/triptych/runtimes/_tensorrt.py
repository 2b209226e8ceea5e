"""TensorRT's Python API, of whichever library: what the builder and the runtime both need of it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

LIBRARIES = {
    "tensorrt": ("tensorrt",),
    # The wheels come in two parts, and the first loads the libraries of the second.
    "tensorrt-rtx": ("tensorrt_rtx_libs", "tensorrt_rtx_bindings"),
}
"""The modules to import, the last of which is the API, by library."""


def library(name: str) -> Any:
    """The API of one of `LIBRARIES`.

    Raises:
        ImportError: it is not installed.
    """
    return [import_module(module) for module in LIBRARIES[name]][-1]


def make_logger(trt: Any) -> Any:
    """A logger that keeps the errors, which the API itself does not give back; `last_words()` are the latest two."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(message)

        def last_words(self) -> str:
            return "; ".join(self.errors[-2:])

    return Logger()
