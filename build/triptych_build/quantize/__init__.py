"""An adapted ONNX in another precision: fp16, bf16, int8 by calibration."""
