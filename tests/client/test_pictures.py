"""Where pictures with boxes go."""

from __future__ import annotations

from pathlib import Path

import pytest

from triptych.pictures import save_paths


@pytest.mark.parametrize(
    ("images", "targets"),
    [
        ([], []),
        (["a/x.png"], ["x.jpg"]),
        (["a/x.png", "b/x.jpg", "a/y.jpg", "c/x.jpg"], ["x.jpg", "x-2.jpg", "y.jpg", "x-3.jpg"]),
        (["a/x-2.jpg", "a/x.jpg", "b/x.jpg"], ["x-2.jpg", "x.jpg", "x-3.jpg"]),
        (["out/x.jpg"], ["x-2.jpg"]),
        (["a/x.png", "a/../out/x.jpg"], ["x-2.jpg", "x-3.jpg"]),
    ],
)
def test_names_of_pictures(tmp_path: Path, images: list[str], targets: list[str]) -> None:
    out = tmp_path / "out"
    assert save_paths([tmp_path / image for image in images], out) == [out / target for target in targets]
