"""Small things that several tests share."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The checkout."""

RUN_SCHEMA = json.loads((ROOT / "docs" / "run_file.schema.json").read_text())
"""What a run file is, as JSON Schema."""

DATA = ROOT.parent / "shared" / "data"
"""Real photographs and weights that lie beside the checkout on some machines."""
