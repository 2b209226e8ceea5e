"""Small things that several tests share."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parent.parent
"""The checkout."""

DATA = ROOT.parent / "shared" / "data"
"""Real photographs and weights that lie beside the checkout on some machines."""
