"""The line-scan camera that looks at a board: binarising or grey, sharp or not, clean or dusty."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from triptych_demo.detector.artwork import Mask

SIZE = 640
"""Width and height of a picture."""

Gains = npt.NDArray[np.float32]


def photograph(copper: Mask, rng: np.random.Generator) -> bytes:
    """Take a picture of copper, uint8 [640, 640] of 0 and 1; return it as a grey JPEG."""
    hard = rng.random() < 0.6
    sharp: Gains = np.asarray(cv2.GaussianBlur(copper.astype(np.float32), (0, 0), float(rng.uniform(0.5, 1.3))))
    # Noise on the edge before the threshold makes ragged contours and leaves flat areas flat.
    ragged = _smooth_noise(rng, float(rng.uniform(0.6, 2.2))) * float(rng.uniform(0.0, 0.16))
    gain = float(rng.uniform(8.0, 30.0)) if hard else float(rng.uniform(1.2, 4.0))
    tone = np.clip((sharp + ragged - float(rng.uniform(0.42, 0.58))) * gain + 0.5, 0.0, 1.0)
    low, high = (0.0, 255.0) if hard and rng.random() < 0.6 else (rng.uniform(0.0, 80.0), rng.uniform(150.0, 255.0))
    if rng.random() < 0.5:
        low, high = high, low
    grey = tone * (high - low) + low
    if not hard:
        grey *= _shading(rng)
    if rng.random() < 0.3:
        grey = np.asarray(cv2.GaussianBlur(grey, (0, 0), float(rng.uniform(0.4, 1.0))), grey.dtype)
    sigma = float(rng.uniform(0.0, 4.0)) if hard else float(rng.uniform(1.0, 9.0))
    if sigma > 0.5:
        grey += _noise(rng) * sigma
    picture = np.clip(grey + 0.5, 0, 255).astype(np.uint8)
    if rng.random() < 0.3:
        _sprinkle(picture, rng)
    quality = int(rng.integers(70, 96))
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def _noise(rng: np.random.Generator) -> Gains:
    """Return float32 [640, 640], of mean 0 and deviation 1, near normal: sums of bytes are several times faster."""
    total = np.zeros((SIZE, SIZE), np.uint16)
    for _ in range(3):
        total += np.frombuffer(rng.bytes(SIZE * SIZE), np.uint8).reshape(SIZE, SIZE)
    return (total.astype(np.float32) - 382.5) / np.float32(73.9 * math.sqrt(3.0))


def _smooth_noise(rng: np.random.Generator, sigma: float) -> Gains:
    """Return float32 [640, 640] of deviation about 1 that varies over `sigma` pixels."""
    raw = np.frombuffer(rng.bytes(SIZE * SIZE), np.uint8).reshape(SIZE, SIZE).astype(np.float32)
    smooth = cv2.GaussianBlur((raw - 127.5) / 73.9, (0, 0), sigma)
    # A Gaussian filter of width sigma leaves 1 / (2 sqrt(pi) sigma) of white noise's deviation.
    return np.asarray(smooth * np.float32(2.0 * math.sqrt(math.pi) * sigma), np.float32)


def _shading(rng: np.random.Generator) -> Gains:
    """Return float32 [1 or 640, 640] gains: a slow illumination profile and the line sensor's pixel stripes."""
    x = np.linspace(-1.0, 1.0, SIZE, dtype=np.float32)
    bow = 1.0 + float(rng.uniform(-0.1, 0.1)) * x - float(rng.uniform(0.0, 0.12)) * x**2
    stripes = rng.normal(0.0, float(rng.uniform(0.0, 0.02)), SIZE)
    gains = (bow + stripes).astype(np.float32)
    return gains[None, :] if rng.random() < 0.5 else np.repeat(gains[:, None], SIZE, axis=1)


def _sprinkle(picture: npt.NDArray[np.uint8], rng: np.random.Generator) -> None:
    """Put specks of one or two pixels on the picture: dust, which is no defect."""
    for x, y in rng.integers(0, SIZE - 2, (int(rng.integers(1, 40)), 2)):
        patch = picture[y : y + int(rng.integers(1, 3)), x : x + int(rng.integers(1, 3))]
        patch[:] = 255 - patch
