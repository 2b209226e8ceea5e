"""The build line: a trained detector's ONNX to verified, published engines in every precision."""
