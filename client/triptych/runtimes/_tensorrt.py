"""TensorRT's Python API, of whichever library: what the builder and the runtime both need of it."""

from __future__ import annotations

import json
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
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


def builder_of(plan: Path) -> str:
    """Whose plan it is, of `LIBRARIES`: each library opens its own alone.

    The manifest beside a published plan says so, or the record beside a built one; else it is the first that is there.
    """
    for beside in (plan.with_name("manifest.json"), plan.with_name(f"{plan.name}.json")):
        with suppress(OSError, ValueError, KeyError, TypeError):
            return str(json.loads(beside.read_text())["engine"]["builder"])
    return next((name for name, modules in LIBRARIES.items() if find_spec(modules[0])), "tensorrt")


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
