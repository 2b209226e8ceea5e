"""The build line: a trained detector's ONNX to verified, published engines in every precision.

`line` is the whole of it, in the order `adapt`, `quantize`, `tensorrt`, `verify`, `publish`. Each step also
stands alone.
"""

import triptych  # noqa: F401  # before ONNX Runtime, which sends no telemetry then
