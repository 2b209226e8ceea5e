"""TensorRT plans: `engine` builds one from an adapted ONNX, for TensorRT or TensorRT for RTX.

`options` says how, `network` describes it to the builder, `layers` lists what came of each layer, and `plan` is the
record that lies next to a plan, since only its own GPU can open it.
"""
