"""The demo's boards: the same for the same seed, and labelled as their copper says."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import typer
from typer.testing import CliRunner, Result

from triptych_demo.detector import boards
from triptych_demo.detector.boards import Composition
from triptych_demo.detector.defects import CLASS_NAMES

Mask = npt.NDArray[np.uint8]

SEED = 41
COUNT = 24

SHA256_OF_PIXELS = "910b2986334d86a02893516a183bf649f1a442325b58dd0df37093c2910baa49"
"""Of the copper of the first twelve boards of the seed, without and with defects, as it was drawn in November 2026."""


@pytest.fixture(scope="module")
def compositions() -> list[Composition]:
    return [boards.compose(SEED, index) for index in range(COUNT)]


def defects_of(compositions: list[Composition], label: int) -> Iterator[tuple[Mask, Mask, Mask]]:
    """Yield (before, after, change), each uint8 of 0 and 1: a window round every defect of class `label`."""
    for made in compositions:
        for defect in made.defects:
            if defect.label != label:
                continue
            x1, y1, x2, y2 = defect.extent_xyxy
            window = np.s_[max(y1 - 12, 0) : y2 + 12, max(x1 - 12, 0) : x2 + 12]
            change = np.zeros_like(made.clean)
            change[y1:y2, x1:x2] = made.clean[y1:y2, x1:x2] ^ made.defective[y1:y2, x1:x2]
            # The clean copper with this one defect; others may lie in the window.
            yield made.clean[window], (made.clean ^ change)[window], change[window]


def near(change: Mask, reach: int = 1) -> npt.NDArray[np.bool_]:
    return np.asarray(cv2.dilate(change, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)) == 1)


def bodies_at(copper: Mask, where: npt.NDArray[np.bool_]) -> set[int]:
    """The connected bodies of `copper` that have pixels in `where`."""
    return set(np.unique(cv2.connectedComponents(copper, connectivity=8)[1][where]).tolist()) - {0}


def test_the_same_seed_and_index_give_the_same_board() -> None:
    first, again, other = boards.generate(SEED, 3), boards.generate(SEED, 3), boards.generate(SEED, 4)
    assert first.jpeg == again.jpeg
    assert np.array_equal(first.boxes_xyxy, again.boxes_xyxy)
    assert np.array_equal(first.labels, again.labels)
    assert not np.array_equal(first.image, other.image)


def test_a_seed_gives_the_boards_that_it_always_gave(compositions: list[Composition]) -> None:
    """The model card's figures were measured on them. (The pictures also depend on the machine's JPEG and floats.)"""
    digest = hashlib.sha256()
    for made in compositions[:12]:
        digest.update(made.clean.tobytes())
        digest.update(made.defective.tobytes())
    assert digest.hexdigest() == SHA256_OF_PIXELS


def test_a_board_has_the_promised_shapes() -> None:
    board = boards.generate(SEED, 0)
    assert board.image.shape == (640, 640, 3)
    assert board.image.dtype == np.uint8
    assert np.array_equal(board.image[..., 0], board.image[..., 2])
    assert board.boxes_xyxy.shape == (len(board.labels), 4)
    assert board.boxes_xyxy.dtype == np.float32
    assert np.array_equal(cv2.imdecode(np.frombuffer(board.jpeg, np.uint8), cv2.IMREAD_COLOR), board.image)


def test_generate_labels_what_compose_made(compositions: list[Composition]) -> None:
    board = boards.generate(SEED, 1)
    assert board.labels.tolist() == [defect.label for defect in compositions[1].defects]


def test_every_class_appears_and_no_board_has_too_many(compositions: list[Composition]) -> None:
    labels = [defect.label for made in compositions for defect in made.defects]
    assert set(labels) == set(range(6))
    assert min(labels.count(label) for label in range(6)) >= 5
    assert max(len(made.defects) for made in compositions) <= boards.MAX_DEFECTS


def test_boxes_lie_in_the_picture_round_their_defects_and_apart(compositions: list[Composition]) -> None:
    for made in compositions:
        for k, defect in enumerate(made.defects):
            x1, y1, x2, y2 = defect.box_xyxy
            assert 0 <= x1 < defect.extent_xyxy[0]
            assert 0 <= y1 < defect.extent_xyxy[1]
            assert defect.extent_xyxy[2] < x2 <= 640
            assert defect.extent_xyxy[3] < y2 <= 640
            for other in made.defects[:k]:
                a, b = defect.box_xyxy, other.box_xyxy
                assert a[0] > b[2] or b[0] > a[2] or a[1] > b[3] or b[1] > a[3]


def test_nothing_changes_outside_the_boxes(compositions: list[Composition]) -> None:
    for made in compositions:
        change = made.clean ^ made.defective
        for defect in made.defects:
            x1, y1, x2, y2 = defect.extent_xyxy
            change[y1:y2, x1:x2] = 0
        assert not change.any()


def test_an_open_parts_one_conductor_in_two(compositions: list[Composition]) -> None:
    for before, after, change in defects_of(compositions, 0):
        assert len(bodies_at(before, change == 1)) == 1
        assert len(bodies_at(after, near(change, 2))) == 2


def test_a_short_joins_two_bodies_that_were_apart_on_the_whole_board(compositions: list[Composition]) -> None:
    for made in compositions:
        bodies = cv2.connectedComponents(made.clean, connectivity=8)[1]
        for defect in made.defects:
            if defect.label != 1:
                continue
            x1, y1, x2, y2 = defect.extent_xyxy
            change = np.zeros_like(made.clean)
            change[y1:y2, x1:x2] = made.clean[y1:y2, x1:x2] ^ made.defective[y1:y2, x1:x2]
            assert len(set(np.unique(bodies[near(change)]).tolist()) - {0}) == 2
            assert len(bodies_at(made.clean | change, change == 1)) == 1


def test_a_mouse_bite_removes_part_of_an_edge_and_parts_nothing(compositions: list[Composition]) -> None:
    for before, after, change in defects_of(compositions, 2):
        assert (before[change == 1] == 1).all()
        assert (before[near(change)] == 0).any()
        assert len(bodies_at(after, near(change, 2))) == 1


def test_a_spur_grows_from_one_body_and_reaches_no_other(compositions: list[Composition]) -> None:
    for before, _, change in defects_of(compositions, 3):
        assert (before[change == 1] == 0).all()
        assert len(bodies_at(before, near(change))) == 1
        ring = (near(change) & (before == 1)).astype(np.uint8)
        assert cv2.connectedComponents(ring, connectivity=8)[0] == 2


def test_spurious_copper_touches_nothing(compositions: list[Composition]) -> None:
    for before, after, change in defects_of(compositions, 4):
        assert not before[near(change, 2)].any()
        assert len(bodies_at(after, change == 1)) == 1


def test_a_pin_hole_is_enclosed_by_copper(compositions: list[Composition]) -> None:
    for before, after, change in defects_of(compositions, 5):
        assert before[near(change)].all()
        bare = np.asarray(1 - after, np.uint8)
        hole = bodies_at(bare, change == 1)
        assert len(hole) == 1
        assert (cv2.connectedComponents(bare, connectivity=8)[1] == hole.pop()).sum() == change.sum()


def invoke(*arguments: str) -> Result:
    app = typer.Typer()
    app.command()(boards.main)
    return CliRunner(env={"COLUMNS": "160"}).invoke(app, arguments)


def test_the_command_writes_a_coco_set_and_replaces_it(tmp_path: Path) -> None:
    out = tmp_path / "set"
    command = [sys.executable, "-m", "triptych_demo.detector.boards", "--out", str(out), "--seed", str(SEED)]
    subprocess.run([*command, "--count", "5", "--workers", "2"], check=True, capture_output=True, timeout=120)
    assert invoke("--out", str(out), "--count", "4", "--seed", str(SEED), "--workers", "1").exit_code == 0
    coco = json.loads((out / "instances.json").read_text(encoding="utf-8"))
    assert [category["name"] for category in coco["categories"]] == list(CLASS_NAMES)
    assert [category["id"] for category in coco["categories"]] == [1, 2, 3, 4, 5, 6]
    names = [image["file_name"] for image in coco["images"]]
    assert sorted(path.name for path in (out / "images").iterdir()) == sorted(names)
    assert len(names) == 4
    assert {annotation["image_id"] for annotation in coco["annotations"]} <= {image["id"] for image in coco["images"]}
    ids = [annotation["id"] for annotation in coco["annotations"]]
    assert len(ids) == len(set(ids))
    for annotation in coco["annotations"]:
        x, y, width, height = annotation["bbox"]
        assert 0 <= x < x + width <= 640.01
        assert 0 <= y < y + height <= 640.01
    assert (out / "images" / names[2]).read_bytes() == boards.generate(SEED, 2).jpeg
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize(
    ("arguments", "option"),
    [(["--count", "0"], "--count"), (["--seed", "-3"], "--seed"), (["--workers", "many"], "--workers")],
)
def test_the_command_refuses_bad_arguments(arguments: list[str], option: str, tmp_path: Path) -> None:
    result = invoke("--out", str(tmp_path / "set"), *arguments)
    assert result.exit_code == 2
    assert option in result.output
    assert not (tmp_path / "set").exists()


def test_the_command_refuses_a_file_as_its_directory(tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("mine", encoding="utf-8")
    result = invoke("--out", str(taken))
    assert result.exit_code == 2
    assert "is a file" in result.output
    assert taken.read_text(encoding="utf-8") == "mine"
