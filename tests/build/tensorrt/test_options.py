"""Options of a plan, and what is refused before anything is built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from triptych.errors import BuildError
from triptych_build.tensorrt.options import Options, Profile, check_candidates


@pytest.mark.parametrize("sizes", [(0, 1, 1), (2, 1, 4), (1, 8, 4), (-1, 8, 16)])
def test_a_profile_that_is_none(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(BuildError, match="a profile must have 1 <= min <= opt <= max, but got"):
        Profile(*sizes)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"dla_core": 0}, "--dla-core"),
        ({"timing_cache": Path("cache")}, "--timing-cache"),
        ({"version_compatible": True}, "--version-compatible"),
        ({"hardware": "ampere_plus"}, "--hardware"),
        ({"level": 3}, "--level"),
        ({"workspace_mib": 64}, "--workspace-mib"),
    ],
)
def test_options_that_mean_nothing_to_rtx(options: dict[str, Any], name: str) -> None:
    with pytest.raises(BuildError, match=f"{name} means nothing to TensorRT for RTX; leave it out"):
        Options(builder="tensorrt-rtx", **options)
    Options(builder="tensorrt", **options)


def test_more_candidates_than_tensorrt_can_choose() -> None:
    check_candidates(3840)
    with pytest.raises(BuildError, match="at most 3840 candidates, but the detector gives 3841; adapt it with --cand"):
        check_candidates(3841)
