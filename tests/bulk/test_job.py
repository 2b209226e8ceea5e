"""What is to be done is written down once, and continued only as it was begun."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow", reason="needs the packages of the extra `bulk`")

from triptych.bulk import job
from triptych.bulk.places import Place
from triptych.errors import ContractError

SETTINGS: dict[str, Any] = {"shard_images": 2, "score_threshold": None, "iou_threshold": 0.5}


@pytest.fixture
def source(tmp_path: Path) -> Place:
    """Five images; the name of one is not UTF-8."""
    folder = tmp_path / "images"
    folder.mkdir()
    for name in (b"a.jpg", b"b.jpg", b"c.jpg", b"d.jpg", b"e\xe9.jpg"):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).touch()
    return Place.of(str(folder))


@pytest.fixture
def out(tmp_path: Path) -> Place:
    return Place.of(str(tmp_path / "out"))


def begin(out: Place, source: Place, *, resume: bool = False, **other: Any) -> job.Job:
    return job.begin(out, source, resume=resume, **{**SETTINGS, **other})


def test_each_image_is_in_one_shard(source: Place, out: Place) -> None:
    begun = begin(out, source)
    assert (begun.images, begun.shards) == (5, 3)
    shards = [job.paths_of(out, shard) for shard in range(begun.shards)]
    assert [list(map(os.fsencode, paths)) for paths in shards] == [
        [b"a.jpg", b"b.jpg"],
        [b"c.jpg", b"d.jpg"],
        [b"e\xe9.jpg"],
    ]


def test_what_is_done_is_not_missing(source: Place, out: Place) -> None:
    begun = begin(out, source)
    out.write(job.part_name(1), b"")
    out.write(".part-00002.parquet.12345678", b"")
    assert job.missing(out, begun) == [0, 2]


def test_results_are_continued_only_if_somebody_says_so(source: Place, out: Place) -> None:
    begun = begin(out, source)
    Path(source.root, "new.jpg").touch()  # the list stays as it was
    assert begin(out, source, resume=True) == begun
    with pytest.raises(ContractError, match="has results; continue them with --resume, or give another --out"):
        begin(out, source)


@pytest.mark.parametrize("other", [{"shard_images": 3}, {"score_threshold": 0.1}, {"iou_threshold": None}])
def test_results_are_continued_only_as_they_were_begun(source: Place, out: Place, other: dict[str, Any]) -> None:
    begin(out, source)
    [name] = other
    with pytest.raises(ContractError, match=f"was begun with {name} {SETTINGS[name]}, and cannot be continued with"):
        begin(out, source, resume=True, **other)


def test_results_of_another_source_are_not_continued(source: Place, out: Place, tmp_path: Path) -> None:
    begin(out, source)
    with pytest.raises(ContractError, match=r"was begun with source '.*images', and cannot be continued with"):
        begin(out, Place.of(str(tmp_path)), resume=True)


def test_a_list_that_was_not_finished_is_made_again(source: Place, out: Place) -> None:
    begin(out, source)
    Path(out.path(job.JOB)).unlink()
    Path(source.root, "new.jpg").touch()
    assert begin(out, source).images == 6


def test_other_peoples_files_are_left_alone(source: Place, out: Place) -> None:
    out.write("precious.parquet", b"x")
    with pytest.raises(ContractError, match="holds other files"):
        begin(out, source, resume=True)


def test_no_images(out: Place, tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="there are no images in"):
        begin(out, Place.of(str(tmp_path)))


def test_a_job_that_cannot_be_read(source: Place, out: Place) -> None:
    begin(out, source)
    out.write(job.JOB, b"{}")
    with pytest.raises(ContractError, match=r"job.json cannot be read"):
        begin(out, source, resume=True)


def test_a_machine_that_does_not_see_the_results_says_so(out: Place) -> None:
    with pytest.raises(ContractError, match="give an --out that every machine sees"):
        job.paths_of(out, 0)
