"""JPEGs to the detector's pixels on a GPU: `decoder` says which image goes where, and `nvidia` is the GPU."""

from __future__ import annotations

from importlib.util import find_spec

from triptych.contract import DetectorSpec
from triptych.packages import install_command
from triptych.vision.gpu.decoder import Card

EXTRA = "gpu-decode"
"""The extra of Triptych that holds its packages."""


def open_card(device: int, spec: DetectorSpec) -> Card:
    """Open a GPU, by its number, for a detector.

    Raises:
        ImportError: a package is missing.
        RuntimeError: the GPU does not decode JPEGs, or CUDA fails.
    """
    from triptych.vision.gpu.nvidia import NvidiaCard

    return NvidiaCard(device, spec)


def missing_packages() -> str:
    """Return in a sentence what is not installed that decoding on a GPU needs, and how to get it; empty if nothing."""
    modules = {
        "nvImageCodec": "nvidia.nvimgcodec",
        "nvJPEG": "nvidia.nvjpeg",
        "NVRTC": "nvidia.cuda_nvrtc",
        "cuda.core": "cuda.core",
        "cuda.bindings": "cuda.bindings",
    }
    missing = [name for name, module in modules.items() if not _is_installed(module)]
    if not missing:
        return ""
    *first, last = missing
    names = f"{', '.join(first)} and {last} are" if first else f"{last} is"
    return f"{names} missing; run `{install_command(EXTRA)}`"


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # nor is the package that it is in
        return False
