"""What all tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import DATA


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real photographs and weights that lie beside the checkout and are not part of it."""
    if not DATA.is_dir():
        pytest.skip(f"needs the real data in {DATA}, which is not here")
    return DATA
