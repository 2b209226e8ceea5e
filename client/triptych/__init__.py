"""Triptych: a trained object detector as a measured, verified Triton service."""

from triptych._version import __version__

__all__ = ["__version__"]
