"""Triptych: a trained object detector as a measured, verified Triton service."""

from triptych._version import __version__
from triptych.client import AsyncDetectionClient, DetectionClient, Tls
from triptych.detections import Detections

__all__ = ["AsyncDetectionClient", "DetectionClient", "Detections", "Tls", "__version__"]
