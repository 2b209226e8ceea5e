"""An adapted ONNX in another precision: fp16 and bf16 tensors, or int8 by post-training quantization.

`quantizer` does it file by file. `narrow` is for fp16 and bf16. For int8, `calibrate` measures ranges, `sensitivity`
looks for the layers that int8 harms most, and `qdq` puts the Q/DQ pairs in. `precision` says which one a graph has.
"""
