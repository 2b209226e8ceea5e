"""A minute of the fuzz campaign; `PYTHONPATH=tests python -m fuzz` runs the long form."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz.campaign import Campaign, small_server

pytestmark = [pytest.mark.triton, pytest.mark.slow]


def test_damaged_files_and_malformed_requests_cost_themselves_alone(tmp_path: Path) -> None:
    with small_server(tmp_path) as server:
        result = Campaign(server, seed=11, keep=tmp_path / "failed").run(files=20_000, requests=1_000, seconds=60)
    assert result.failures == []
    assert result.answers["decoded"] > 0
    assert result.requests["INVALID_ARGUMENT"] > 0
