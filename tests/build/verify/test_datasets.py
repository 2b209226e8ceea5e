"""Labels in every format become the same COCO document, and what does not fit is refused in one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from triptych.errors import BuildError
from triptych_build.verify.datasets import read_dataset
from triptych_build.verify.truth import Dataset

NAMES = ("cat", "dog")


def picture(path: Path, orientation: int = 1) -> Path:
    """A picture of 200x100 pixels, as stored."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.zeros((100, 200, 3), np.uint8)).save(path, exif=exif)
    return path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def coco(folder: Path, **changes: Any) -> Path:
    """Two images, a dog in the second one; ids as COCO has them, with gaps."""
    for name in ("a.jpg", "b.jpg"):
        picture(folder / "images" / name)
    document = {
        "images": [{"id": 30, "file_name": "a.jpg"}, {"id": 9, "file_name": "b.jpg"}],
        "categories": [{"id": 7, "name": "Dog"}, {"id": 3, "name": "cat"}],
        "annotations": [{"id": 1, "image_id": 9, "category_id": 7, "bbox": [10, 20, 30, 40], "iscrowd": 0}],
    }
    return write(folder / "instances.json", json.dumps(document | changes))


def rows(dataset: Dataset) -> list[tuple[int, int, list[float]]]:
    assert dataset.truth is not None
    return [(row["image_id"], row["category_id"], row["bbox"]) for row in dataset.truth["annotations"]]


def annotation(**changes: Any) -> dict[str, Any]:
    return {"id": 5, "image_id": 30, "category_id": 3, "bbox": [0, 0, 5, 5]} | changes


def test_coco_by_name(tmp_path: Path) -> None:
    dataset = read_dataset(coco(tmp_path), NAMES)
    assert [path.name for path in dataset.images] == ["a.jpg", "b.jpg"]
    assert rows(dataset) == [(2, 1, [10, 20, 30, 40])]
    assert dataset.truth is not None
    assert dataset.truth["images"] == [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}]
    assert dataset.truth["categories"] == [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}]
    assert dataset.truth["annotations"][0]["area"] == 1200


def test_the_folder_of_a_coco_json_will_do(tmp_path: Path) -> None:
    assert read_dataset(coco(tmp_path).parent, NAMES) == read_dataset(tmp_path / "instances.json", NAMES)


@pytest.mark.parametrize(
    ("class_names", "label"),
    [
        (("first", "second"), 1),  # none known: by the order of the ids 3, 7
        (("kitten", "dog"), 1),  # one known, and where the order puts it
        (("dog", "kitten"), 0),  # one known, against the order: names count
        (("bird", "cat", "dog"), 2),  # the detector knows more
    ],
)
def test_coco_class_ids(tmp_path: Path, class_names: tuple[str, ...], label: int) -> None:
    assert rows(read_dataset(coco(tmp_path), class_names)) == [(2, label, [10, 20, 30, 40])]


def test_a_category_without_boxes_may_be_unknown(tmp_path: Path) -> None:
    categories = [{"id": 0, "name": "animals"}, {"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]
    assert rows(read_dataset(coco(tmp_path, categories=categories), NAMES)) == [(2, 1, [10, 20, 30, 40])]


def test_crowds_stay_and_boxes_without_area_go(tmp_path: Path) -> None:
    annotations = [annotation(), annotation(bbox=[0, 0, 0, 5]), annotation(iscrowd=1)]
    dataset = read_dataset(coco(tmp_path, annotations=annotations), NAMES)
    assert dataset.truth is not None
    assert [row["iscrowd"] for row in dataset.truth["annotations"]] == [0, 1]
    assert [row["id"] for row in dataset.truth["annotations"]] == [1, 2]


def test_coco_images_elsewhere(tmp_path: Path) -> None:
    path = coco(tmp_path)
    (tmp_path / "images").rename(tmp_path / "photographs")
    with pytest.raises(BuildError, match=r"none of the 2 images .* name their folder with --images"):
        read_dataset(path, NAMES)
    assert read_dataset(path, NAMES, tmp_path / "photographs").images[0] == tmp_path / "photographs" / "a.jpg"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"annotations": [annotation(image_id=4)]}, "has boxes of image 4, which it does not list among its 2 images"),
        ({"annotations": [annotation(category_id=8)]}, r"has the classes Dog, cat, but the detector has cat, dog"),
        ({"categories": [{"id": 3, "name": "tree"}]}, "has the classes tree, but the detector has cat, dog"),
        ({"annotations": [annotation(bbox=[1, 2, 3])]}, "is not a COCO document of boxes"),
        ({"annotations": [annotation(bbox=[1, 2, float("nan"), 4])]}, "the bbox of image 30 is"),
        ({"annotations": [{"id": 1}]}, "it has no 'bbox'"),
        ({"images": []}, "lists no images"),
        ({"annotations": []}, "hold no box, so accuracy has no meaning"),
        ({"annotations": [annotation(iscrowd=1)]}, "hold no box"),
        ({"images": [{"id": 9, "file_name": "a.jpg"}, {"id": 30, "file_name": "c.jpg"}]}, "1 of the 2 images .* c.jpg"),
    ],
)
def test_coco_that_does_not_fit(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BuildError, match=message):
        read_dataset(coco(tmp_path, **changes), NAMES)


def test_json_of_another_kind(tmp_path: Path) -> None:
    for text in ("[]", "{", '{"images": 3}', "{}"):
        with pytest.raises(BuildError, match="is not a COCO document of boxes"):
            read_dataset(write(tmp_path / "other.json", text), NAMES)


@pytest.mark.parametrize("layout", ["folders", "next to them"])
def test_yolo(tmp_path: Path, layout: str) -> None:
    images, labels = (tmp_path / "images", tmp_path / "labels") if layout == "folders" else (tmp_path, tmp_path)
    picture(images / "b.png")
    picture(images / "a.png")
    write(labels / "b.txt", "1 0.5 0.5 0.5 0.2\n\n0 0.1 0.5 0.2 1\n")
    dataset = read_dataset(tmp_path, NAMES)
    assert [path.name for path in dataset.images] == ["a.png", "b.png"]
    boxes = rows(dataset)
    assert [row[:2] for row in boxes] == [(2, 1), (2, 0)]
    np.testing.assert_allclose([row[2] for row in boxes], [[50, 40, 100, 20], [0, 0, 40, 100]], atol=1e-6)


def test_yolo_boxes_count_in_the_picture_turned_upright(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg", orientation=6)  # 100x200 once it stands upright
    write(tmp_path / "a.txt", "0 0.5 0.5 1 1")
    assert rows(read_dataset(tmp_path, NAMES)) == [(1, 0, [0, 0, 100, 200])]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 0.5 0.5 0.5 wide", r"line 1 of .*a.txt is '0 0.5 0.5 0.5 wide'; expected `class centre_x"),
        ("0 0.5 0.5 0.5 0.5\n0 0.5 0.5 0.5", r"line 2 of .*a.txt"),
        ("0 0.5 0.5 nan 0.5", r"line 1 of"),
        ("0 50 50 20 20", r"line 1 of .* the last four in 0..1"),
        ("dog 0.5 0.5 0.5 0.5", r"line 1 of"),
        ("2 0.5 0.5 0.5 0.5", r"line 1 of .*a.txt has class 2, but the detector's classes are 0 cat, 1 dog"),
        ("-1 0.5 0.5 0.5 0.5", r"has class -1, but"),
        ("\n", "hold no box"),
    ],
)
def test_yolo_rows_that_do_not_fit(tmp_path: Path, text: str, message: str) -> None:
    picture(tmp_path / "images" / "a.png")
    write(tmp_path / "labels" / "a.txt", text)
    with pytest.raises(BuildError, match=message):
        read_dataset(tmp_path, NAMES)


def test_labels_that_fit_no_image(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    write(tmp_path / "labels" / "z.txt", "0 0.5 0.5 0.5 0.5")
    with pytest.raises(BuildError, match=r"none of the 1 label files .* z.txt needs an image of that name"):
        read_dataset(tmp_path, NAMES)


def test_images_alone(tmp_path: Path) -> None:
    images = (picture(tmp_path / "a.png"), picture(tmp_path / "b.jpg"))
    write(tmp_path / "README.txt", "where these come from")
    assert read_dataset(tmp_path, NAMES) == Dataset(images, None)


def test_no_images(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"there are no images in .* expected files like"):
        read_dataset(tmp_path, NAMES)
    with pytest.raises(BuildError, match=r"there are no labels .*nowhere"):
        read_dataset(tmp_path / "nowhere", NAMES)
    with pytest.raises(BuildError, match=r"labels.csv is neither a COCO .json"):
        read_dataset(write(tmp_path / "labels.csv", ""), NAMES)


def test_a_folder_of_two_documents(tmp_path: Path) -> None:
    coco(tmp_path)
    write(tmp_path / "train.json", "{}")
    with pytest.raises(BuildError, match=r"holds instances.json, train.json; name the one"):
        read_dataset(tmp_path, NAMES)


class TestDataYaml:
    def make(self, root: Path, text: str) -> Path:
        picture(root / "valid" / "images" / "a.png")
        picture(root / "train" / "images" / "t.png")
        write(root / "valid" / "labels" / "a.txt", "0 0.5 0.5 0.5 0.5")
        return write(root / "data.yaml", text)

    @pytest.mark.parametrize(
        "text",
        [
            "val: valid/images\nnames: [Dog, cat]",
            "path: .\nval: [valid/images]\nnames: {0: dog, 1: cat}",
            "train: ../train/images\nval: ../valid/images\nnames: [dog, cat]",  # as Roboflow writes it
        ],
    )
    def test_val_split_and_names(self, tmp_path: Path, text: str) -> None:
        path = self.make(tmp_path / "set", text)
        assert rows(read_dataset(path, NAMES)) == [(1, 1, [50, 25, 100, 50])]
        assert read_dataset(path.parent, NAMES) == read_dataset(path, NAMES)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("val: valid/images\nnames: [tree]", "has the classes tree, but the detector has cat, dog"),
            ("val: valid/images\nnames: [tree, bush]", "has the classes tree, bush, but the detector has cat, dog"),
            ("val: valid/images\nnames: [tree, cat]", r"line 1 of .* has class 0 \(tree\), but .* are 1 cat;"),
            ("val: nowhere\nnames: [dog, cat]", "`val` split .*nowhere of data.yaml is no folder"),
            ("names: [dog, cat]", "it has no 'val'"),
            ("val: [", "is not the data.yaml of a YOLO set"),
            ("just a sentence", "is not the data.yaml of a YOLO set"),
            ("val: valid/images\nnames: 3", "is not the data.yaml of a YOLO set"),
        ],
    )
    def test_that_does_not_fit(self, tmp_path: Path, text: str, message: str) -> None:
        with pytest.raises(BuildError, match=message):
            read_dataset(self.make(tmp_path, text), NAMES)

    def test_a_detector_that_never_had_names(self, tmp_path: Path) -> None:
        path = self.make(tmp_path, "val: valid/images\nnames: [tree, bush]")
        assert rows(read_dataset(path, ("class 0", "class 1"))) == [(1, 0, [50, 25, 100, 50])]
