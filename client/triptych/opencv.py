"""OpenCV, or in its place one sentence that says what is the matter with it.

Packages overwrite each other's `cv2`: `pip install ultralytics` brings opencv-python, and with it NumPy 2. That must
end a command with a sentence, and `triptych doctor` not at all. So OpenCV is imported here alone, and an OpenCV that
cannot be used is an error only where it is used.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any, NoReturn

from triptych.errors import TriptychError
from triptych.packages import requirements

OURS = "opencv-python-headless"
OTHERS = ("opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless")
"""Packages that put their files in the place of ours."""

NEEDED = ("IMREAD_COLOR_RGB", "IMREAD_IGNORE_ORIENTATION", "imdecode", "imencode", "resize", "VideoCapture", "dnn")


def problem() -> str | None:
    """Return why OpenCV cannot be used and what to do, as a sentence; None where it can."""
    try:
        module = importlib.import_module("cv2")
    except Exception as error:  # an ImportError of its libraries; an AttributeError of a NumPy that does not fit
        return _sentence(" ".join(str(error).split()) or type(error).__name__)
    lacking = [name for name in NEEDED if not hasattr(module, name)]
    if lacking:
        return _sentence(f"version {getattr(module, '__version__', 'unknown')} has no {lacking[0]}")
    return None


def overwriting() -> list[str]:
    """Return the installed packages whose files are in the place of ours, with their versions."""
    return [f"{name} {version}" for name in OTHERS if (version := _version(name))]


def remedy() -> str:
    """Return the commands that bring our OpenCV back."""
    installed = [name for name in OTHERS if _version(name)]
    remove = f"pip uninstall -y {' '.join(installed)}; " if installed else ""
    return f"{remove}pip install --force-reinstall {requirements(OURS, 'numpy')}"


def _sentence(reason: str) -> str:
    culprits = " and ".join(overwriting())
    came = f"{culprits} was installed over {OURS}" if culprits else f"{OURS} {_version(OURS) or 'is not installed'}"
    return f"OpenCV cannot be used ({reason}): {came}; mend it with `{remedy()}`"


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


class _Unusable:
    """Stands in for a `cv2` that cannot be used."""

    def __init__(self, sentence: str) -> None:
        self._sentence = sentence

    def __getattr__(self, name: str) -> NoReturn:
        raise TriptychError(self._sentence)


def _load() -> Any:
    if sentence := problem():
        return _Unusable(sentence)
    module = importlib.import_module("cv2")
    # What is wrong with an image, our errors say. OpenCV 5 has this at another place.
    (module if hasattr(module, "setLogLevel") else module.utils.logging).setLogLevel(0)
    return module


if TYPE_CHECKING:
    import cv2 as cv2
else:
    cv2 = _load()
