"""Encoded images to the detector's pixels: each is decoded, and resized into a letterbox of the detector's size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from triptych.contract import GEOMETRY_FIELDS, MAX_ENCODED_BYTES, MAX_PIXELS, Decoding, DetectorSpec, Placement
from triptych.errors import ImageError, ImageFault
from triptych.opencv import cv2
from triptych.vision.decode import decode_reduced
from triptych.vision.jpeg import is_quick


class Geometry(NamedTuple):
    """Where an image is in its letterbox: x_letterbox = x * scale_x + pad_left, and so for y; see `GEOMETRY_FIELDS`."""

    scale_x: float
    scale_y: float
    pad_left: float
    pad_top: float
    width: float
    height: float


class Preprocessed(NamedTuple):
    """A batch as it leaves preprocess.

    Attributes:
        pixels: uint8 [n, H, W, 3], RGB.
        geometry: float32 [n, 6]; zeros for an image that could not be read.
        errors: why an image could not be read; empty for one that could.
    """

    pixels: NDArray[np.uint8]
    geometry: NDArray[np.float32]
    errors: list[str]


Apart = Callable[[bytes, NDArray[np.uint8]], Geometry]
"""Decode and letterbox one image into a canvas somewhere else; see `DecoderProcess.for_request`."""


OnFault = Callable[[ImageFault, str], None]
"""Take notice of an image that cannot be read: what is wrong with it, and the sentence for whoever sent it."""


def letterbox_geometry(
    width: int, height: int, target_width: int, target_height: int, placement: Placement = "center"
) -> Geometry:
    """Return where an image of one size goes in a letterbox of another.

    `center` rounds as Ultralytics does. `top_left` rounds the resized size down, as YOLOX does. Both keep the aspect
    ratio and enlarge small images. `stretch` fills the target. The scales are calculated from the rounded size, so that
    boxes come back from the letterbox without drift.
    """
    if placement == "stretch":
        return Geometry(target_width / width, target_height / height, 0, 0, width, height)
    scale = min(target_width / width, target_height / height)
    to_int = int if placement == "top_left" else round
    new_width, new_height = (max(1, to_int(side * scale)) for side in (width, height))
    left = top = 0
    if placement == "center":
        left, top = (
            round((free - taken) / 2 - 0.1) for free, taken in ((target_width, new_width), (target_height, new_height))
        )
    return Geometry(new_width / width, new_height / height, left, top, width, height)


def letterbox(
    rgb: NDArray[np.uint8],
    canvas: NDArray[np.uint8],
    *,
    placement: Placement = "center",
    pad_value: int = 114,
    size: tuple[int, int] | None = None,
) -> Geometry:
    """Resize an image into a canvas and paint the border, so that every pixel of the canvas is written once.

    Args:
        rgb: uint8 [height, width, 3].
        canvas: uint8 [H, W, 3], such as a row of a batch.
        placement: where the image goes.
        pad_value: grey level of the border.
        size: width and height of the image itself, where `rgb` has fewer pixels.
    """
    width, height = size or rgb.shape[1::-1]
    target_height, target_width = canvas.shape[:2]
    geometry = letterbox_geometry(width, height, target_width, target_height, placement)
    left, top = int(geometry.pad_left), int(geometry.pad_top)
    right, bottom = left + round(geometry.scale_x * width), top + round(geometry.scale_y * height)
    inside = canvas[top:bottom, left:right]
    if inside.shape == rgb.shape:
        inside[:] = rgb
    else:
        cv2.resize(rgb, (right - left, bottom - top), dst=inside, interpolation=cv2.INTER_LINEAR)
    canvas[:top], canvas[bottom:] = pad_value, pad_value
    canvas[top:bottom, :left], canvas[top:bottom, right:] = pad_value, pad_value
    return geometry


class Letterbox(Protocol):
    """What an image is decoded and letterboxed for; a `DetectorSpec` says it."""

    @property
    def width(self) -> int:
        """Of the canvas."""

    @property
    def height(self) -> int:
        """Of the canvas."""

    @property
    def placement(self) -> Placement:
        """Where the image goes."""

    @property
    def pad_value(self) -> int:
        """The grey level of the border."""

    @property
    def decode(self) -> Decoding:
        """Whether large JPEGs are decoded to fewer pixels."""


def factor(width: int, height: int, target: Letterbox) -> int:
    """Return what the sides of a JPEG are divided by as it is decoded: 1, 2, 4 or 8.

    It is the most at which the image still has as many pixels as its place in the letterbox.
    """
    if target.decode == "full":
        return 1
    geometry = letterbox_geometry(width, height, target.width, target.height, target.placement)
    scale = max(geometry.scale_x, geometry.scale_y)
    return next((divisor for divisor in (8, 4, 2) if divisor * scale <= 1), 1)


def decode_into(
    encoded: bytes,
    canvas: NDArray[np.uint8],
    target: Letterbox,
    *,
    max_bytes: int = MAX_ENCODED_BYTES,
    max_pixels: int = MAX_PIXELS,
) -> Geometry:
    """Decode an image and letterbox it into a canvas, uint8 [H, W, 3]; see `decode` and `letterbox`.

    Raises:
        ImageError: the image cannot be read, or is larger than the limits.
    """
    decoded = decode_reduced(encoded, partial(factor, target=target), max_bytes=max_bytes, max_pixels=max_pixels)
    size = (decoded.width, decoded.height)
    return letterbox(decoded.rgb, canvas, placement=target.placement, pad_value=target.pad_value, size=size)


def preprocess(
    images: Sequence[bytes],
    spec: DetectorSpec,
    *,
    max_bytes: int = MAX_ENCODED_BYTES,
    max_pixels: int = MAX_PIXELS,
    apart: Apart | None = None,
    on_fault: OnFault | None = None,
) -> Preprocessed:
    """Decode and letterbox a batch. An image that cannot be read does not harm the others, and raises nothing.

    Its row of pixels is all border, its geometry is zeros, and its error says why in a sentence.

    Args:
        images: the encoded images.
        spec: the detector's size and letterbox.
        max_bytes: the limit on each image's bytes.
        max_pixels: the limit on each image's pixels.
        apart: decodes and letterboxes what is not known to be quick and harmless; None does it here.
        on_fault: called for each image that cannot be read.
    """
    pixels = np.empty((len(images), spec.height, spec.width, 3), np.uint8)
    geometry = np.zeros((len(images), len(GEOMETRY_FIELDS)), np.float32)
    errors = [""] * len(images)
    for row, encoded in enumerate(images):
        try:
            if apart is not None and not is_quick(encoded):
                geometry[row] = apart(encoded, pixels[row])
                continue
            geometry[row] = decode_into(encoded, pixels[row], spec, max_bytes=max_bytes, max_pixels=max_pixels)
        except Exception as error:  # whatever it is, the other images of the batch are fine
            pixels[row] = spec.pad_value
            geometry[row] = 0
            fault: ImageFault | None = "internal"
            errors[row] = f"the image cannot be processed: {error!r}"
            if isinstance(error, ImageError):
                fault, errors[row] = error.fault, str(error)
            if on_fault is not None:
                on_fault(fault or "damaged", errors[row])
    return Preprocessed(pixels, geometry, errors)
