"""The Python API of TensorRT and TensorRT-RTX, as far as both the builder and the runtime need it."""

from __future__ import annotations

import json
from collections.abc import Mapping
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
"""The modules to import for a library. The last one is the API."""


def library(name: str) -> Any:
    """Import one of `LIBRARIES` and return its API.

    Raises:
        ImportError: it is not installed.
    """
    return [import_module(module) for module in LIBRARIES[name]][-1]


def builder_of(plan: Path) -> str:
    """Return the library, of `LIBRARIES`, that built a plan. No other one opens it.

    Without a record, it is the first library that is installed.
    """
    first = next((name for name, modules in LIBRARIES.items() if find_spec(modules[0])), "tensorrt")
    return str(engine_of(plan).get("builder", first))


def engine_of(plan: Path) -> Mapping[str, Any]:
    """Return what the manifest next to a published plan says of it, or the record next to a built one; or nothing."""
    for record in (plan.with_name("manifest.json"), plan.with_name(f"{plan.name}.json")):
        with suppress(OSError, ValueError, KeyError, TypeError):
            return dict(json.loads(record.read_text())["engine"])
    return {}


def make_logger(trt: Any) -> Any:
    """Make a logger that keeps the errors, which the API does not return. `last_words()` gives the latest two."""

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
