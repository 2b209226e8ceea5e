"""The demo: a detector for defects on circuit boards, and the whole of Triptych run on it.

`triptych demo` runs it; `detector` is how the model was made.
"""

import triptych  # noqa: F401  # before ONNX Runtime, which sends no telemetry then
