"""Pixels for the small detectors."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from support.detectors import SIDE


@pytest.fixture
def pixels() -> NDArray[np.uint8]:
    return np.random.default_rng(7).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)
