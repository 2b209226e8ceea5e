"""Awkward files from the wild: each is decoded as Pillow sees it, or refused in a sentence."""

from __future__ import annotations

import io
import time
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from triptych.errors import ImageError
from triptych.vision.decode import decode

NOT_PILLOW_S = {
    "16_bit_binary.pgm": "Pillow clips 16 bits to 8, we keep the high byte",
    "16bit.cropped.tif": "likewise",
    "crash-0da013a13571cc8eb457a39fee8db18f8a3c7127.tif": "libtiff's builds differ in what they still decode",
    "psd-oob-write.psd": "Photoshop's format is not among ours",
}


def second_opinion(encoded: bytes) -> np.ndarray | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(encoded))).convert("RGB"))
        except Exception:
            return None


def decode_or_refuse(encoded: bytes) -> tuple[np.ndarray | None, str]:
    try:
        return decode(encoded), ""
    except ImageError as error:
        return None, str(error)


def test_every_file(shared_data: Path) -> None:
    files = sorted(path for path in (shared_data / "edge_images" / "files").rglob("*") if path.is_file())
    assert len(files) > 60
    for path in files:
        encoded, started = path.read_bytes(), time.monotonic()
        found, refusal = decode_or_refuse(encoded)
        assert (found is None) == (len(refusal.split()) > 4), f"{path.name}: a sentence, not {refusal!r}"
        assert "\n" not in refusal, path.name
        assert time.monotonic() - started < 5, f"{path.name}: bombs go off slowly"
        if path.name in NOT_PILLOW_S:
            continue
        expected = second_opinion(encoded)
        assert (found is None) == (expected is None), path.name
        if found is not None:
            assert found.shape == expected.shape, path.name
            assert np.abs(found.astype(int) - expected).mean() < 2, path.name
