"""Decoding, letterbox and preprocess, on images made here; Pillow is the second opinion."""

from __future__ import annotations

import io
import struct
import time
import tracemalloc
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from triptych.contract import DetectorSpec
from triptych.errors import ImageError
from triptych.vision.decode import decode, image_files, letterbox, letterbox_geometry, preprocess, read_header

SPEC = DetectorSpec(64, 48, ("any",), pad_value=114)


def gradient(width: int = 60, height: int = 40) -> np.ndarray:
    """A smooth picture without symmetry, uint8 RGB."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    planes = [x / width, y / height, (x + 2 * y) / (width + 2 * height)]
    return (np.stack(planes, -1) * 255).astype(np.uint8)


def save(image: Image.Image, image_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def pillow(encoded: bytes) -> np.ndarray:
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(encoded))).convert("RGB"))


RGB = Image.fromarray(gradient())
JPEG, PNG = save(RGB, "JPEG", quality=95), save(RGB, "PNG")


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF"])
def test_every_format(image_format: str) -> None:
    encoded = save(RGB, image_format)
    header = read_header(encoded)
    assert (header.format, header.width, header.height, header.orientation) == (image_format, 60, 40, 1)
    np.testing.assert_allclose(decode(encoded), pillow(encoded), atol=3)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(image_format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    encoded = save(RGB, image_format, exif=exif)
    assert read_header(encoded).orientation == orientation
    np.testing.assert_allclose(decode(encoded), pillow(encoded), atol=3)


def test_a_nonsensical_orientation_is_none() -> None:
    exif = Image.Exif()
    exif[0x0112] = 77
    assert decode(save(RGB, "JPEG", exif=exif)).shape == (40, 60, 3)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_every_kind_of_pixel(mode: str) -> None:
    image_format = "JPEG" if mode == "CMYK" else "PNG"
    encoded = save(RGB.convert(mode), image_format)
    np.testing.assert_allclose(decode(encoded), pillow(encoded), atol=3)


def test_alpha_is_dropped_not_blended() -> None:
    rgba = np.dstack([gradient(), np.zeros((40, 60), np.uint8)])
    np.testing.assert_array_equal(decode(save(Image.fromarray(rgba), "PNG")), gradient())


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_sixteen_bits_keep_their_high_byte(suffix: str) -> None:
    wide = np.arange(0, 65536, 64, dtype=np.uint16).reshape(32, 32)
    encoded = cv2.imencode(suffix, wide)[1].tobytes()
    np.testing.assert_allclose(decode(encoded)[..., 0], wide >> 8, atol=1)


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_an_animation_gives_its_first_frame(image_format: str) -> None:
    frames = [Image.new("RGB", (20, 10), color) for color in ("red", "green", "blue")]
    encoded = save(frames[0], image_format, save_all=True, append_images=frames[1:])
    red, green, blue = decode(encoded).reshape(-1, 3).mean(0)
    assert red > 240
    assert green < 15
    assert blue < 15


@pytest.mark.parametrize("size", [(1, 1), (1, 2000), (10000, 1)])
def test_extreme_shapes(size: tuple[int, int]) -> None:
    assert decode(save(Image.new("RGB", size, "white"), "PNG")).shape == (size[1], size[0], 3)


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 999)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(("width", "height"), [(60_000, 60_000), (8_000, 7_000), (2_000_000_000, 1)])
def test_a_bomb_is_refused_before_it_is_decoded(width: int, height: int) -> None:
    bomb = png_header(width, height)
    tracemalloc.start()
    with pytest.raises(ImageError, match=r"pixels.*more than the limit of 50000000"):
        decode(bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


def test_limits_can_be_set() -> None:
    with pytest.raises(ImageError, match=r"2400 pixels \(60x40\), more than the limit of 2399"):
        decode(PNG, max_pixels=2399)
    assert decode(PNG, max_pixels=2400).shape == (40, 60, 3)
    with pytest.raises(ImageError, match=f"{len(PNG)} bytes, more than the limit of 100"):
        decode(PNG, max_bytes=100)


@pytest.mark.parametrize(
    ("encoded", "message"),
    [
        (b"", "empty"),
        (b"not an image", "no image that can be read"),
        (b"\x89PNG\r\n\x1a\n", "damaged or ends early|no image that can be read"),
        (b"\xff\xd8\xff", "damaged or ends early|no image that can be read"),
        (b"%PDF-1.7 \n", "no image that can be read"),
        (save(RGB, "ICO", sizes=[(16, 16)]), "no image that can be read"),
        (save(RGB.convert("F"), "TIFF"), "floating-point"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(encoded: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        decode(encoded)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "encoded",
    [JPEG, PNG, save(RGB, "WEBP"), save(RGB, "BMP"), save(RGB, "TIFF")],
    ids=["jpeg", "png", "webp", "bmp", "tiff"],
)
def test_half_a_picture_is_no_picture(encoded: bytes) -> None:
    for length in range(0, len(encoded) - 20, max(1, len(encoded) // 60)):
        with pytest.raises(ImageError):
            decode(encoded[:length])


def test_bytes_after_a_jpeg_are_fine() -> None:
    np.testing.assert_array_equal(decode(JPEG + b"trailing \xff\xda bytes"), decode(JPEG))


def test_a_thumbnail_s_end_is_not_the_picture_s_end() -> None:
    exif = b"Exif\0\0" + b"II*\0\x08\0\0\0\0\0\0\0\0\0" + save(RGB.resize((16, 16)), "JPEG")
    encoded = save(RGB, "JPEG", exif=exif)
    assert decode(encoded).shape == (40, 60, 3)
    with pytest.raises(ImageError, match="ends early"):
        decode(encoded[:-100])


@settings(max_examples=200)
@given(
    st.binary(max_size=200), st.sampled_from([b"", JPEG[:300], PNG[:60], b"GIF89a", b"BM", b"II*\0", b"P5 9 9 255 "])
)
def test_no_bytes_raise_anything_else(tail: bytes, head: bytes) -> None:
    try:
        rgb = decode(head + tail)
    except ImageError:
        return
    assert rgb.dtype == np.uint8
    assert rgb.ndim == 3


@settings(max_examples=200)
@given(st.sampled_from([JPEG, PNG]), st.integers(0, 10**6), st.integers(1, 255))
def test_no_damage_raises_anything_else(encoded: bytes, position: int, flip: int) -> None:
    damaged = bytearray(encoded)
    damaged[position % len(damaged)] ^= flip
    try:
        assert decode(bytes(damaged), max_pixels=10**6).shape[2] == 3
    except ImageError:
        return


@pytest.mark.parametrize(
    ("size", "placement", "expected"),
    [
        ((640, 640), "center", (1, 1, 0, 0, 640, 640)),
        ((1280, 720), "center", (0.5, 0.5, 0, 140, 1280, 720)),
        ((720, 1280), "center", (0.5, 0.5, 140, 0, 720, 1280)),
        ((1280, 721), "center", (0.5, 360 / 721, 0, 140, 1280, 721)),
        ((320, 320), "center", (2, 2, 0, 0, 320, 320)),
        ((1280, 721), "top_left", (0.5, 360 / 721, 0, 0, 1280, 721)),
        ((1000, 333), "top_left", (0.64, 213 / 333, 0, 0, 1000, 333)),
        ((1280, 720), "stretch", (0.5, 640 / 720, 0, 0, 1280, 720)),
        ((10000, 1), "center", (0.064, 1, 0, 319, 10000, 1)),
    ],
)
def test_letterbox_geometry(size: tuple[int, int], placement: str, expected: tuple[float, ...]) -> None:
    assert letterbox_geometry(*size, 640, 640, placement) == pytest.approx(expected)


@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.integers(1, 90),
    st.integers(1, 90),
    st.sampled_from(["center", "top_left", "stretch"]),
)
def test_letterbox_writes_every_pixel_of_its_canvas(width, height, target_width, target_height, placement) -> None:
    white = np.full((height, width, 3), 255, np.uint8)
    canvases = [np.full((target_height, target_width, 3), poison, np.uint8) for poison in (7, 200)]
    for canvas in canvases:
        geometry = letterbox(white, canvas, placement=placement, pad_value=50)
    np.testing.assert_array_equal(*canvases)
    left, top = int(geometry.pad_left), int(geometry.pad_top)
    right, bottom = left + round(geometry.scale_x * width), top + round(geometry.scale_y * height)
    expected = np.full((target_height, target_width, 3), 50, np.uint8)
    expected[top:bottom, left:right] = 255
    np.testing.assert_array_equal(canvases[0], expected)


def test_letterbox_resizes_as_opencv_does() -> None:
    picture = gradient(300, 200)
    canvas = np.zeros((64, 96, 3), np.uint8)
    letterbox(picture, canvas)
    np.testing.assert_array_equal(canvas, cv2.resize(picture, (96, 64), interpolation=cv2.INTER_LINEAR))


def test_preprocess_keeps_bad_images_to_their_own_rows() -> None:
    good = preprocess([PNG], SPEC)
    mixed = preprocess([b"bad", PNG, b"", PNG, png_header(60_000, 60_000)], SPEC)
    assert mixed.pixels.shape == (5, 48, 64, 3)
    for row in (1, 3):
        np.testing.assert_array_equal(mixed.pixels[row], good.pixels[0])
        np.testing.assert_array_equal(mixed.geometry[row], good.geometry[0])
        assert mixed.errors[row] == ""
    for row in (0, 2, 4):
        assert (mixed.pixels[row] == SPEC.pad_value).all()
        assert not mixed.geometry[row].any()
        assert " " in mixed.errors[row]


def test_preprocess_survives_what_nobody_thought_of(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **_kwargs: object) -> None:
        raise ZeroDivisionError("surprise")

    monkeypatch.setattr("triptych.vision.decode.letterbox", fail)
    assert preprocess([PNG], SPEC).errors == ["the image cannot be processed: ZeroDivisionError('surprise')"]


def test_an_empty_batch() -> None:
    pixels, geometry, errors = preprocess([], SPEC)
    assert (pixels.shape, geometry.shape, errors) == ((0, 48, 64, 3), (0, 6), [])


def test_image_files(tmp_path) -> None:
    for name in ("b.JPG", "a.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"any")
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in image_files(tmp_path)] == ["a.png", "b.JPG"]
    with pytest.raises(ImageError, match="no directory"):
        image_files(tmp_path / "nowhere")


def test_exif_behind_a_png_s_pixels_counts_too() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    early = save(RGB, "PNG", exif=exif)
    start = early.index(b"eXIf") - 4
    length = 12 + int.from_bytes(early[start : start + 4], "big")
    chunk = early[start : start + length]
    late = early.replace(chunk, b"")[:-12] + chunk + early[-12:]
    assert decode(late).shape == (60, 40, 3)


def test_a_forged_chunk_length_costs_no_time() -> None:
    forged = PNG[:-12] + struct.pack(">I", 2**31 - 1) + b"tEXt" + PNG[-12:]
    started = time.monotonic()
    with pytest.raises(ImageError):
        decode(forged)
    assert time.monotonic() - started < 2


def test_threads_leave_the_warning_filters_as_they_were() -> None:
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(decode, [PNG, JPEG] * 200))
    assert warnings.filters == before


def test_integers_of_unknown_range_are_refused() -> None:
    with pytest.raises(ImageError, match="32-bit pixels"):
        decode(save(Image.fromarray(np.full((8, 8), 100_000, np.int32)), "TIFF"))
