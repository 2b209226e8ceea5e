"""The process that decodes: it gives what decoding here gives, and its death costs one image."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from support import ROOT
from support.images import JPEG, PNG, RGB, gradient, save
from triptych.contract import DetectorSpec
from triptych.errors import ImageError
from triptych.model_config import read_config
from triptych.vision import decoder_process
from triptych.vision.decoder_process import MAX_DECODE_S, DecoderProcess
from triptych.vision.letterbox import preprocess

SPEC = DetectorSpec(64, 48, ("thing",), pad_value=7)
FAULTY = """
import sys, json; sys.path[:] = json.loads(sys.argv[2])
import os, time
from triptych.vision import decoder_process
good = decoder_process.decode_into
def bad(encoded, *where, **limits):
    if encoded.startswith(b"crash"):
        os.kill(os.getpid(), 11)
    while encoded.startswith(b"loop"):
        pass
    if encoded.startswith(b"talk"):
        os.write(1, b"a library's warning\\n")
    if encoded.startswith(b"large"):
        bytearray(2**34)
    return good(encoded[4:] if encoded.startswith(b"talk") else encoded, *where, **limits)
decoder_process.decode_into = bad
decoder_process.main()
"""


@pytest.fixture
def apart() -> Iterator[DecoderProcess]:
    process = DecoderProcess(SPEC)
    yield process
    process.close()


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Iterator[DecoderProcess]:
    """A process whose decoder crashes, loops, talks or takes too much memory, as the image says."""
    monkeypatch.setattr(decoder_process, "_START", FAULTY)
    process = DecoderProcess(SPEC, max_decode_s=0.25)
    yield process
    process.close()


def test_the_result_is_that_of_decoding_here(apart: DecoderProcess) -> None:
    images = [PNG, JPEG, save(RGB, "WEBP"), b"nonsense", b"", save(RGB.rotate(90), "GIF"), bytes(20_000_001)]
    here, there = preprocess(images, SPEC), preprocess(images, SPEC, apart=apart.for_request())
    np.testing.assert_array_equal(here.pixels, there.pixels)
    np.testing.assert_array_equal(here.geometry, there.geometry)
    assert here.errors == there.errors


def test_large_jpegs_are_decoded_to_fewer_pixels_there_too() -> None:
    spec = replace(SPEC, decode="scaled")
    images = [save(Image.fromarray(gradient(300, 200)), "JPEG")]
    process = DecoderProcess(spec)
    try:
        geometry = process.for_request()(images[0], canvas := np.empty((48, 64, 3), np.uint8))
    finally:
        process.close()
    here = preprocess(images, spec)
    np.testing.assert_allclose(geometry, here.geometry[0], rtol=1e-6)
    np.testing.assert_array_equal(canvas, here.pixels[0])
    assert (canvas != preprocess(images, SPEC).pixels[0]).any()


def test_a_plain_jpeg_needs_no_process(apart: DecoderProcess) -> None:
    assert preprocess([JPEG], SPEC, apart=apart.for_request()).errors == [""]
    assert apart._process is None


def test_a_crash_costs_one_image(faulty: DecoderProcess) -> None:
    errors = preprocess([PNG, b"crash", PNG, JPEG], SPEC, apart=faulty.for_request()).errors
    assert errors == ["", "the image is damaged in a way that ends its decoder (SIGSEGV); save it again", "", ""]


def test_a_loop_ends_and_costs_one_image(faulty: DecoderProcess) -> None:
    errors = preprocess([b"loop", PNG], SPEC, apart=faulty.for_request()).errors
    assert errors == ["the image takes more than 0.25 s to decode; send it smaller, or as a plain JPEG", ""]


def test_the_images_of_a_request_have_a_limit_together(faulty: DecoderProcess) -> None:
    errors = preprocess([*[b"loop"] * 4, PNG, JPEG], SPEC, apart=faulty.for_request()).errors
    late = "the other images of the request took 0.75 s to decode; send fewer at a time"
    assert errors[2:] == [errors[0], late, late, ""]
    assert preprocess([PNG], SPEC, apart=faulty.for_request()).errors == [""]


def test_the_default_limit_is_that_of_the_repository() -> None:
    parameters = read_config(ROOT / "model_repository" / "preprocess").parameters
    assert float(parameters["max_decode_s"].string_value) == MAX_DECODE_S


def test_too_much_memory_is_refused(faulty: DecoderProcess) -> None:
    first, second = preprocess([b"large", PNG], SPEC, apart=faulty.for_request()).errors
    assert "memory" in first.lower()
    assert second == ""


def test_what_a_library_prints_is_no_answer(faulty: DecoderProcess) -> None:
    assert preprocess([b"talk" + PNG, PNG], SPEC, apart=faulty.for_request()).errors == ["", ""]


def test_a_process_that_was_killed_is_replaced(apart: DecoderProcess) -> None:
    assert preprocess([PNG], SPEC, apart=apart.for_request()).errors == [""]
    assert apart._process is not None
    os.kill(apart._process.pid, signal.SIGKILL)
    assert preprocess([PNG, PNG], SPEC, apart=apart.for_request()).errors[1] == ""


def test_it_ends_with_its_owner() -> None:
    process = DecoderProcess(SPEC)
    assert preprocess([PNG], SPEC, apart=process.for_request()).errors == [""]
    running = process._process
    assert running is not None
    process.close()
    assert running.returncode == 0


def test_a_process_that_does_not_start_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_process, "_START", "raise SystemExit(3)")
    errors = preprocess([PNG, JPEG], SPEC, apart=DecoderProcess(SPEC).for_request()).errors
    assert "did not start (exit status 3)" in errors[0]
    assert errors[1] == ""


def test_the_limits_hold_there_too() -> None:
    process = DecoderProcess(SPEC, max_bytes=10_000, max_pixels=2399)
    too_large = save(Image.fromarray(gradient()), "PNG")
    with pytest.raises(ImageError, match="more than the limit of 2399"):
        process.for_request()(too_large, np.empty((48, 64, 3), np.uint8))
    with pytest.raises(ImageError, match="more than the limit of 10000"):
        process.for_request()(bytes(10_001), np.empty((48, 64, 3), np.uint8))
    process.close()
