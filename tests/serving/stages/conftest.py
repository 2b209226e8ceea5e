"""What the tests of the stages' observers share."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def log_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """An observer sets up the log of its process; here that is pytest's."""
    monkeypatch.setattr("triptych.serving.log_format.set_up_log", lambda: None)
