"""Decoding, on images made here and on awkward files from the wild. Pillow is the second opinion."""

from __future__ import annotations

import io
import struct
import time
import tracemalloc
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps

from support.images import JPEG, PNG, RGB, damaged_animation, gradient, png_header, save
from triptych.errors import ImageError
from triptych.vision.decode import decode, image_files, read_header

NOT_PILLOW_S = {
    "16_bit_binary.pgm": "Pillow clips 16 bits to 8, we keep the high byte",
    "16bit.cropped.tif": "the same",
    "crash-0da013a13571cc8eb457a39fee8db18f8a3c7127.tif": "builds of libtiff differ in what they can still decode",
    "psd-oob-write.psd": "we do not read Photoshop's format",
}


def pillow(encoded: bytes) -> NDArray[np.uint8]:
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(encoded))).convert("RGB"))


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
    header = read_header(encoded)
    assert header.orientation == orientation
    assert header.upright == pillow(encoded).shape[1::-1]
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


def one_row_tiff(bits: int, samples: int, pixels: bytes, extra_samples: int | None = None) -> bytes:
    """Return a TIFF of one row, grey or RGB with more samples, without compression."""
    width, photometric = len(pixels) * 8 // (bits * samples), 1 if samples < 3 else 2
    depths = struct.pack(f"<{samples}H", *[bits] * samples) if samples > 2 else b""
    tags = {256: width, 257: 1, 259: 1, 262: photometric, 277: samples, 278: 1, 279: len(pixels)}
    tags |= {258: bits} if extra_samples is None else {338: extra_samples}
    start = 8 + 2 + 12 * (len(tags) + 1 + (258 not in tags)) + 4
    entries = {tag: struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items()}
    entries[273] = struct.pack("<HHII", 273, 4, 1, start + len(depths))
    if depths:
        entries[258] = struct.pack("<HHII", 258, 3, samples, start)
    directory = b"".join(entries[tag] for tag in sorted(entries))
    return struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + directory + bytes(4) + depths + pixels


# Alpha is 128 of 255. The colours of associated alpha are stored multiplied by it.
@pytest.mark.parametrize(
    ("kind", "stored"),
    [(0, (200, 100, 50)), (1, (100, 50, 25)), (2, (200, 100, 50))],
    ids=["any", "associated", "alpha"],
)
def test_the_colours_of_a_tiff_are_its_own_whatever_its_alpha(kind: int, stored: tuple[int, ...]) -> None:
    encoded = one_row_tiff(8, 4, bytes([*stored, 128]) * 4, extra_samples=kind)
    np.testing.assert_allclose(decode(encoded)[0, 0], (200, 100, 50), atol=2)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_deflate", "packbits"])
def test_alpha_of_a_tiff_is_dropped_not_blended(compression: str) -> None:
    rgba = np.dstack([gradient(), np.full((40, 60), 60, np.uint8)])
    encoded = save(Image.fromarray(rgba), "TIFF", compression=compression)
    np.testing.assert_array_equal(decode(encoded), gradient())


def test_twelve_bits_of_a_tiff_are_scaled() -> None:
    values = (0, 2048, 4095, 1024)
    packed = int("".join(f"{value:012b}" for value in values), 2).to_bytes(6, "big")
    np.testing.assert_allclose(decode(one_row_tiff(12, 1, packed))[0, :, 0], [0, 127.5, 255, 63.8], atol=1)


@pytest.mark.parametrize("digits", [False, True], ids=["binary", "digits"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("white", [1, 15, 100, 255, 256, 300, 1023, 4095, 65534, 65535])
def test_the_range_of_a_pgm_or_ppm_is_scaled(white: int, channels: int, digits: bool) -> None:
    values = np.linspace(0, white, 12 * channels).round().astype(int).reshape(3, 4, channels)
    kind = {(1, False): 5, (3, False): 6, (1, True): 2, (3, True): 3}[channels, digits]
    head = f"P{kind}\n# by hand\n4 3 # wide\n{white}\n".encode()
    body = (
        " ".join(map(str, values.flat)).encode() if digits else values.astype(">u2" if white > 255 else "u1").tobytes()
    )
    expected = np.broadcast_to(values * 255 / white, (3, 4, 3))
    np.testing.assert_allclose(decode(head + body), expected, atol=1)


def test_values_above_the_range_of_a_pgm_are_white() -> None:
    assert decode(b"P5 2 1 100 " + bytes([100, 255]))[0, :, 0].tolist() == [255, 255]


@pytest.mark.parametrize("header", [b"P5 2 1 0 ", b"P5 2 1 70000 ", b"P5 2 1 ", b"P5 2 1 # never ends"])
def test_a_pgm_of_no_sense_is_refused(header: bytes) -> None:
    with pytest.raises(ImageError):
        decode(header + bytes(2))


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
        (b"not an image", "cannot be read as an image"),
        (b"\x89PNG\r\n\x1a\n", "damaged or ends early|cannot be read as an image"),
        (b"\xff\xd8\xff", "damaged or ends early|cannot be read as an image"),
        (b"%PDF-1.7 \n", "cannot be read as an image"),
        (save(RGB, "ICO", sizes=[(16, 16)]), "cannot be read as an image"),
        (save(RGB.convert("F"), "TIFF"), "floating-point"),
        (b"Pf\n2 1\n-1.0\n" + struct.pack("<ff", 0.5, 1.0), "floating-point"),
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


def test_image_files(tmp_path: Path) -> None:
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


def test_opencv_never_sees_a_forged_chunk_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would allocate 2 GB for the chunk, which takes seconds."""
    forged = PNG[:-12] + struct.pack(">I", 2**31 - 1) + b"tEXt" + PNG[-12:]
    calls: list[object] = []
    monkeypatch.setattr(cv2, "imdecode", lambda *arguments: calls.append(arguments))
    with pytest.raises(ImageError):
        decode(forged)
    assert calls == []
    assert decode(PNG).shape == (40, 60, 3)
    assert len(calls) == 1


@pytest.mark.parametrize("kind", ["acTL at its end", "damaged", "PNG", "WEBP"])
def test_opencv_never_sees_an_animation(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    frames = {"save_all": True, "append_images": [RGB.rotate(180)]}
    encoded = {
        "acTL at its end": PNG + b"\0\0\0\x08acTL" + bytes(12),
        "damaged": damaged_animation(),
        "PNG": save(RGB, "PNG", **frames),
        "WEBP": save(RGB, "WEBP", **frames),
    }[kind]
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("OpenCV was asked"))
    rgb, refusal = decode_or_refuse(encoded)
    assert rgb is not None or kind == "damaged", refusal


def tiff(width: int, height: int, tile_width: int, tile_height: int) -> bytes:
    """A grey TIFF in one tile."""
    row = bytes(tile_width)
    packer = zlib.compressobj(9)
    tile = b"".join([*(packer.compress(row) for _ in range(tile_height)), packer.flush()])
    tags = [(256, width), (257, height), (258, 8), (259, 8), (262, 1), (277, 1), (322, tile_width), (323, tile_height)]
    tags += [(324, 8 + 2 + 12 * 10 + 4), (325, len(tile))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + tile


def test_a_tile_far_larger_than_its_picture_is_refused() -> None:
    with pytest.raises(ImageError, match="16x16 has tiles of 8192x4096; save it again, without tiles"):
        decode(tiff(16, 16, 8192, 4096))
    assert decode(tiff(16, 16, 256, 256)).shape == (16, 16, 3)


def test_threads_leave_the_warning_filters_as_they_were() -> None:
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(decode, [PNG, JPEG] * 200))
    assert warnings.filters == before


def test_integers_of_unknown_range_are_refused() -> None:
    with pytest.raises(ImageError, match="32-bit pixels"):
        decode(save(Image.fromarray(np.full((8, 8), 100_000, np.int32)), "TIFF"))


def second_opinion(encoded: bytes) -> NDArray[np.uint8] | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return pillow(encoded)
        except Exception:
            return None


def decode_or_refuse(encoded: bytes) -> tuple[NDArray[np.uint8] | None, str]:
    try:
        return decode(encoded), ""
    except ImageError as error:
        return None, str(error)


@pytest.fixture(scope="module")
def edge_images(shared_data: Path) -> list[Path]:
    files = sorted(path for path in (shared_data / "edge_images" / "files").rglob("*") if path.is_file())
    assert len(files) > 60
    return files


def test_awkward_files_are_decoded_as_pillow_does_or_refused_in_a_sentence(edge_images: list[Path]) -> None:
    for path in edge_images:
        encoded = path.read_bytes()
        rgb, refusal = decode_or_refuse(encoded)
        assert (rgb is None) == (len(refusal.split()) > 4), f"{path.name}: a sentence, not {refusal!r}"
        assert "\n" not in refusal, path.name
        if path.name in NOT_PILLOW_S:
            continue
        expected = second_opinion(encoded)
        assert (rgb is None) == (expected is None), path.name
        if rgb is not None and expected is not None:
            assert rgb.shape == expected.shape, path.name
            assert np.abs(rgb.astype(int) - expected).mean() < 2, path.name


@pytest.mark.timing
def test_no_awkward_file_takes_long(edge_images: list[Path]) -> None:
    for path in edge_images:
        encoded, started = path.read_bytes(), time.monotonic()
        decode_or_refuse(encoded)
        assert time.monotonic() - started < 5, f"{path.name}: bombs go off slowly"
