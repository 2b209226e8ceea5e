"""A page of each kind."""

from __future__ import annotations

import pytest

from support.pages import PAGES, pages
from triptych.report.blocks import Page


@pytest.fixture(scope="session")
def every_page() -> dict[str, Page]:
    """By name: a page of each kind."""
    made = pages()
    assert tuple(made) == PAGES
    return made
