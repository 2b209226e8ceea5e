"""A source's ONNX to an adapted one, which keeps the contract: uint8 pixels in, candidates out.

`adapter` puts the parts together: `onnx_file` reads and writes, `source` looks at the graph, `heads` know the output
layouts, `graph` adds what comes before and after, `batch` opens a fixed batch and `batch_proof` proves it on images.
"""
