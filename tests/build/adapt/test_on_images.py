"""A detector on a few of the user's images: what is said of them, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support import ROOT
from support.detectors import raw_model
from triptych.errors import BuildError
from triptych_build.adapt.adapter import Overrides, adapt_file
from triptych_build.adapt.names import read_names
from triptych_build.adapt.on_images import look_at_images
from triptych_demo.detector.boards import generate


def test_the_border_on_the_images(tmp_path: Path) -> None:
    source, adapted = raw_model(tmp_path / "source.onnx"), tmp_path / "adapted.onnx"
    noise = np.random.default_rng(0).integers(0, 256, (36, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "wide.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    images = [tmp_path / "broken.png", tmp_path / "wide.png"]
    adapt_file(source, adapted)
    assert look_at_images(source, Overrides(), adapted, images) == [
        "size: 44% of 64x64 is border on 1 images, and no shape has less"
    ]
    assert look_at_images(source, Overrides(), adapted, []) == []
    adapt_file(source, adapted, Overrides(placement="stretch"))
    assert look_at_images(source, Overrides(placement="stretch"), adapted, images) == []


def test_a_detector_that_sees_nothing_with_the_wrong_preprocessing(shared_data: Path, tmp_path: Path) -> None:
    """YOLOX as YOLOv5: the same layout, other pixels."""
    source, adapted = shared_data / "yolox_nano" / "yolox_nano.onnx", tmp_path / "adapted.onnx"
    names = read_names(shared_data / "yolox_nano" / "coco_classes.txt")
    images = sorted((shared_data / "coco_cc").rglob("*.jpg"))
    right = Overrides(names=names)
    adapt_file(source, adapted, right)
    assert look_at_images(source, right, adapted, images)[0].startswith("size: ")
    wrong = Overrides(names=names, placement="top_left", order="rgb", scale=1 / 255)
    adapt_file(source, adapted, wrong)
    unaware = Overrides(names=names)
    with pytest.raises(BuildError, match=r"hardly sees anything on 4 of your images.*--order bgr --scale 1; say so"):
        look_at_images(source, unaware, adapted, images)
    assert look_at_images(source, wrong, adapted, images), "who names the preparation is believed"


def test_boxes_that_were_read_the_wrong_way(tmp_path: Path) -> None:
    """Drawn images may mislead; on the user's own a trained detector's boxes lie in the image."""
    demo, adapted = ROOT / "demo" / "pcb.onnx", tmp_path / "adapted.onnx"
    images = [tmp_path / f"{number}.jpg" for number in range(4)]
    for number, path in enumerate(images):
        path.write_bytes(generate(1000, number).jpeg)
    wrong = Overrides(boxes="corners")
    adapt_file(demo, adapted, wrong)
    with pytest.raises(
        BuildError,
        match=r"^on 4 of your images \d?% of the boxes that the detector is surest of lie in the image, with boxes are "
        r"corners in pixels, and \d+% with --boxes centers; say so, or name the present reading with --boxes corners",
    ):
        look_at_images(demo, Overrides(), adapted, images)
    assert look_at_images(demo, wrong, adapted, images), "who names the reading is believed"
    adapt_file(demo, adapted)
    assert look_at_images(demo, Overrides(), adapted, images)
