"""A real GPU decodes and letterboxes: its kernel gives NumPy's bits, and its pictures are nearly OpenCV's."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from support.gpu_card import StandInCard
from support.images import PNG, gradient, save
from triptych.contract import DetectorSpec, Placement
from triptych.cuda import checked
from triptych.machine import nvidia_gpus
from triptych.runtimes import open_runtime
from triptych.vision.gpu import missing_packages, open_card
from triptych.vision.gpu.decoder import GpuDecoder, Placed, Request, Sheet
from triptych.vision.letterbox import letterbox_geometry, preprocess
from triptych_demo.detector.boards import generate

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(120)]

Pixels = NDArray[np.uint8]
SPEC = DetectorSpec(640, 640, ("any",))
BATCH = 16


@pytest.fixture(scope="module", autouse=True)
def gpu() -> None:
    if missing := missing_packages():
        pytest.skip(missing)
    if not nvidia_gpus():
        pytest.skip("there is no GPU")


@pytest.fixture(scope="module")
def card() -> Any:
    return open_card(0, SPEC)


@pytest.fixture(scope="module")
def boards() -> list[bytes]:
    return [generate(1000, number).jpeg for number in range(BATCH)]


def on_host(pixels: Any) -> Pixels:
    """Copy what has `__dlpack__` from the GPU."""
    from cuda.bindings import runtime
    from cuda.core.utils import StridedMemoryView

    view = StridedMemoryView.from_dlpack(pixels, stream_ptr=-1)
    array = np.empty(view.shape, np.uint8)
    way = runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
    checked(runtime.cudaMemcpy(array.ctypes.data, view.ptr, array.nbytes, way))
    return array


def picture_of(picture: Any) -> Pixels:
    return np.asarray(picture.image.cpu())


def encodings(picture: Pixels) -> dict[str, bytes]:
    """The same picture in every kind of JPEG that goes to the GPU."""
    image = Image.fromarray(picture)
    kinds: dict[str, dict[str, Any]] = {
        "4:2:0": {},
        "4:2:2": {"subsampling": "4:2:2"},
        "4:4:4": {"subsampling": "4:4:4"},
        "progressive": {"progressive": True},
        "restarts": {"restart_marker_blocks": 4},
    }
    made = {name: save(image, "JPEG", quality=90, **options) for name, options in kinds.items()}
    return {**made, "grey": save(image.convert("L"), "JPEG", quality=90)}


@pytest.mark.parametrize("placement", ["center", "top_left", "stretch"])
@pytest.mark.parametrize("size", [(640, 640), (1280, 720), (333, 517), (2, 3000), (3000, 2), (1, 1)])
def test_the_kernel_gives_numpys_bits(placement: Placement, size: tuple[int, int]) -> None:
    spec = DetectorSpec(320, 240, ("any",), placement=placement, pad_value=7)
    card: Any = open_card(0, spec)
    encoded = save(Image.fromarray(gradient(*size)), "JPEG", quality=95)
    (picture,) = card.decode([encoded])
    geometry = letterbox_geometry(*size, 320, 240, placement)
    given = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    (made,) = card.fill([Sheet({1: Placed(picture, geometry)}, {0: given, 2: given[::-1]})])

    class OnHost:
        rgb, (width, height) = picture_of(picture), size

    (expected,) = StandInCard(spec).fill([Sheet({1: Placed(OnHost, geometry)}, {0: given, 2: given[::-1]})])
    np.testing.assert_array_equal(on_host(made), np.from_dlpack(expected))


def test_every_kind_of_jpeg_is_decoded_alike_alone_and_in_a_batch(card: Any) -> None:
    board = cv2.resize(generate(1000, 0).image, (555, 444))[..., ::-1]
    encoded = encodings(np.ascontiguousarray(board))
    together = card.decode(list(encoded.values()))
    for (name, jpeg), picture in zip(encoded.items(), together, strict=True):
        assert picture is not None, name
        (alone,) = card.decode([jpeg])
        np.testing.assert_array_equal(picture_of(picture), picture_of(alone), err_msg=name)
        by_cpu = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB)
        difference = np.abs(picture_of(picture).astype(int) - by_cpu)
        assert difference.mean() < 1.5, f"{name}: {difference.mean():.2f} levels on average"


@pytest.mark.parametrize("size", [1, 3, 8, BATCH])
def test_batches_of_every_size_give_the_same_bits(card: Any, boards: list[bytes], size: int) -> None:
    decoder = GpuDecoder(card, SPEC)
    whole = decoder.preprocess([Request(boards)])[0].pixels
    parts = decoder.preprocess([Request(boards[at : at + size]) for at in range(0, BATCH, size)])
    np.testing.assert_array_equal(np.concatenate([on_host(part.pixels) for part in parts]), on_host(whole))


def test_both_ways_in_one_request(card: Any, boards: list[bytes]) -> None:
    images = [boards[0], PNG, b"bad", boards[1], boards[2][:-2]]
    (made,) = GpuDecoder(card, SPEC).preprocess([Request(images)])
    by_cpu = preprocess(images, SPEC)
    assert made.errors == by_cpu.errors
    np.testing.assert_array_equal(made.geometry, by_cpu.geometry)
    pixels = on_host(made.pixels)
    np.testing.assert_array_equal(pixels[[1, 2, 4]], by_cpu.pixels[[1, 2, 4]])
    assert np.abs(pixels.astype(int) - by_cpu.pixels).mean() < 1.5


def test_damage_inside_a_file_harms_no_other(card: Any, boards: list[bytes]) -> None:
    middle = len(boards[1]) // 2
    damaged = boards[1][:middle] + bytes(500) + boards[1][middle + 500 :]
    made = GpuDecoder(card, SPEC).preprocess([Request([boards[0], damaged, boards[2]]), Request([boards[0]])])
    first, alone = on_host(made[0].pixels), on_host(made[1].pixels)
    np.testing.assert_array_equal(first[0], alone[0])


def test_a_picture_outlives_the_card_that_decoded_it() -> None:
    (picture,) = open_card(0, SPEC).decode([save(Image.fromarray(gradient(640, 640)), "JPEG")])
    assert picture_of(picture).shape == (640, 640, 3)
    del picture


def test_memory_is_used_again(card: Any, boards: list[bytes]) -> None:
    from cuda.bindings import runtime

    decoder, free = GpuDecoder(card, SPEC), []
    for _ in range(30):
        decoder.preprocess([Request(boards)])
        free.append(runtime.cudaMemGetInfo()[1])
    assert free[9] - free[-1] < 50_000_000


def test_a_detector_finds_the_same_by_both_ways(card: Any, boards: list[bytes], tmp_path: Any) -> None:
    from support import ROOT
    from triptych_build.adapt.adapter import adapt_file

    adapt_file(ROOT / "demo" / "pcb.onnx", tmp_path / "adapted.onnx")
    runtime = open_runtime("onnxruntime", tmp_path / "adapted.onnx", threads=2)
    (made,) = GpuDecoder(card, SPEC).preprocess([Request(boards)])
    found, expected = (runtime.detect(pixels) for pixels in (on_host(made.pixels), preprocess(boards, SPEC).pixels))
    for one, other in zip(found, expected, strict=True):
        sure = other[other[:, 4] > 0.5]
        for row in sure:
            near = np.abs(one[:, :4] - row[:4]).max(1).argmin()
            assert np.abs(one[near, :4] - row[:4]).max() < 0.5
            assert one[near, 5] == row[5]
