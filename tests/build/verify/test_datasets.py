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
            ("val: nowhere\nnames: [dog, cat]", "`val` split nowhere of data.yaml is not here"),
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


class TestSetsAsPeopleHaveThem:
    """Each is read, or refused in one sentence."""

    def yolo(self, root: Path, row: str | bytes = "0 .5 .5 .2 .4\n", val: str = "images/val", more: str = "") -> Path:
        picture(root / "images" / "val" / "a.jpg")
        write(root / "labels" / "val" / "a.txt", "")
        (root / "labels" / "val" / "a.txt").write_bytes(row if isinstance(row, bytes) else row.encode())
        return write(root / "data.yaml", f"path: .\nval: {val}\nnames: [cat, dog]\n{more}")

    @pytest.mark.parametrize(
        "row",
        [
            "0.0 .5 .5 .2 .4",
            "\ufeff0 .5 .5 .2 .4",
            "0 .5 .5 .2 .4".encode("utf-16"),
            "0\t.5 .5 .2 .4\r\n",
            "0 0.4 0.3 0.6 0.3 0.6 0.7 0.4 0.7",
        ],
    )
    def test_rows(self, tmp_path: Path, row: str | bytes) -> None:
        ((image, label, box),) = rows(read_dataset(self.yolo(tmp_path, row), NAMES))
        assert (image, label) == (1, 0)
        assert box == pytest.approx([80, 30, 40, 40])

    def test_key_points_are_no_outline(self, tmp_path: Path) -> None:
        path = self.yolo(tmp_path, "0 .5 .5 .2 .4 .1 .1 .9 .9", more="kpt_shape: [2, 2]\n")
        ((_, _, box),) = rows(read_dataset(path, NAMES))
        assert box == pytest.approx([80, 30, 40, 40])

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ("0.5 .5 .5 .2 .4", r"line 1 of .* expected `class"),
            ("0 .5 .5 .2 .4 .9", r"line 1 of .* or the points of an outline"),
            ("0,.5,.5,.2,.4", r"line 1 of"),
            (b"\x80\x81\xfe", r"is no text in UTF-8 or UTF-16; save the labels again as UTF-8"),
        ],
    )
    def test_rows_of_another_kind(self, tmp_path: Path, row: str | bytes, message: str) -> None:
        with pytest.raises(BuildError, match=message):
            read_dataset(self.yolo(tmp_path, row), NAMES)

    @pytest.mark.parametrize("val", ["/content/set/images/val", "'C:\\Users\\me\\set\\images\\val'", "../images/val"])
    def test_a_split_on_another_machine(self, tmp_path: Path, val: str) -> None:
        assert len(read_dataset(self.yolo(tmp_path, val=val), NAMES).images) == 1

    def test_a_split_that_is_not_here(self, tmp_path: Path) -> None:
        """`images` alone would hold the images that it was trained on, too."""
        with pytest.raises(BuildError, match=r"`val` split /content/ds/valid/images of data.yaml is not here"):
            read_dataset(self.yolo(tmp_path, val="/content/ds/valid/images"), NAMES)

    @pytest.mark.parametrize("listed", ["./images/val/a.jpg", "/elsewhere/set/images/val/a.jpg\n\n"])
    def test_a_split_that_is_a_list(self, tmp_path: Path, listed: str) -> None:
        path = self.yolo(tmp_path, val="val.txt")
        write(tmp_path / "val.txt", listed)
        assert len(rows(read_dataset(path, NAMES))) == 1
        write(tmp_path / "val.txt", f"{listed}\nimages/val/gone.jpg")
        with pytest.raises(
            BuildError, match=r"1 of the \d images that .*val.txt lists are not here, such as .*gone.jpg"
        ):
            read_dataset(path, NAMES)

    def test_folders_within_folders(self, tmp_path: Path) -> None:
        path = self.yolo(tmp_path)
        picture(tmp_path / "images" / "val" / "camera" / "b.jpg")
        write(tmp_path / "labels" / "val" / "camera" / "b.TXT", "1 .5 .5 .2 .4")
        assert [row[:2] for row in rows(read_dataset(path, NAMES))] == [(1, 0), (2, 1)]
        picture(tmp_path / "images" / "train" / "t.jpg")
        path.unlink()
        with pytest.raises(BuildError, match=r"images holds train, val; name the one to verify with"):
            read_dataset(tmp_path, NAMES)

    def test_what_macos_leaves_is_passed_over(self, tmp_path: Path) -> None:
        path = self.yolo(tmp_path)
        for hidden in ("images/val/._a.jpg", "labels/val/._a.txt", "._data.yaml"):
            (tmp_path / hidden).write_bytes(b"\x00\x05\x16\x07")
        assert len(read_dataset(path.parent, NAMES).images) == 1

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("# nothing", "it has no 'names'"),
            ("val:\nnames: [cat, dog]", "is not the data.yaml of a YOLO set"),
            ("val: data.yaml/x/y\nnames: [cat, dog]", "is not here"),
            ("val: [3]\nnames: [cat, dog]", "`val` split 3 of data.yaml is not here"),
        ],
    )
    def test_a_document_without_sense(self, tmp_path: Path, text: str, message: str) -> None:
        path = self.yolo(tmp_path)
        with pytest.raises(BuildError, match=message):
            read_dataset(write(path, text), NAMES)

    def test_a_set_without_any_labels_is_not_taken_for_images_alone(self, tmp_path: Path) -> None:
        path = self.yolo(tmp_path)
        (tmp_path / "labels" / "val" / "a.txt").unlink()
        with pytest.raises(BuildError, match=r"names 1 images, and there is no label file for any of them"):
            read_dataset(path, NAMES)

    def test_labels_of_pascal_voc(self, tmp_path: Path) -> None:
        picture(tmp_path / "a.jpg")
        write(tmp_path / "a.xml", "<annotation/>")
        with pytest.raises(BuildError, match=r"a.xml is no label file that is read; export the labels as COCO JSON"):
            read_dataset(tmp_path, NAMES)

    @pytest.mark.parametrize("name", ["C:\\\\photos\\\\{}", "/home/else/images/{}", "images/{}"])
    def test_file_names_of_another_machine_in_coco(self, tmp_path: Path, name: str) -> None:
        named = [{"id": 30, "file_name": name.format("a.jpg")}, {"id": 9, "file_name": name.format("b.jpg")}]
        dataset = read_dataset(coco(tmp_path, images=named), NAMES)
        assert [path.name for path in dataset.images] == ["a.jpg", "b.jpg"]

    def test_coco_in_the_text_of_windows(self, tmp_path: Path) -> None:
        path = coco(tmp_path)
        path.write_bytes(path.read_text().encode("utf-16"))
        assert len(rows(read_dataset(path, NAMES))) == 1

    def test_one_id_for_two_classes(self, tmp_path: Path) -> None:
        categories = [{"id": 7, "name": "dog"}, {"id": 7, "name": "cat"}]
        with pytest.raises(BuildError, match="the id 7 stands for 'dog' and 'cat'"):
            read_dataset(coco(tmp_path, categories=categories), NAMES)


class TestClassesOfOneName:
    def boxes(self, folder: Path, names: list[str], class_names: tuple[str, ...]) -> list[int]:
        """Return which class of the detector a box of each category gets."""
        categories = [{"id": number + 1, "name": name} for number, name in enumerate(names)]
        annotations = [annotation(id=number, category_id=number + 1) for number in range(len(names))]
        return [
            row[1]
            for row in rows(read_dataset(coco(folder, categories=categories, annotations=annotations), class_names))
        ]

    def test_the_order_keeps_them_apart(self, tmp_path: Path) -> None:
        assert self.boxes(tmp_path, ["scratch", "hole", "scratch"], ("scratch", "hole", "scratch")) == [0, 1, 2]

    def test_case_keeps_them_apart(self, tmp_path: Path) -> None:
        assert self.boxes(tmp_path, ["hole", "Scratch", "scratch"], ("scratch", "Scratch", "hole")) == [2, 1, 0]

    @pytest.mark.parametrize(
        "names", [["hole", "scratch"], ["scratch", "SCRATCH", "hole"], ["hole", "scratch", "scratch"]]
    )
    def test_what_cannot_be_told_apart_is_refused(self, tmp_path: Path, names: list[str]) -> None:
        with pytest.raises(BuildError, match=r"classes called 'scratch', so which is which cannot be told"):
            self.boxes(tmp_path, names, ("scratch", "hole", "scratch"))
