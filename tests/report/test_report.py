"""Where pages go, and that they are whole or not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from triptych import report
from triptych.errors import ContractError


def test_a_report_that_was_not_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ContractError, match="cannot be written"):
        report.write(tmp_path / "file" / "report.html", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_page_does_not_overwrite_its_run() -> None:
    assert report.page_path(Path("run.json")) == Path("run.html")
    with pytest.raises(ContractError, match=r"name a JSON file, such as run\.json"):
        report.page_path(Path("run.html"))
