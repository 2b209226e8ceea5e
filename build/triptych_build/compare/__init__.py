"""One detector on every runtime, side by side: accuracy, size, load time, latency.

`cases` are the rows, `measure` runs one in a process of its own, `compare` takes them in turns, `report` and `plot`
show them. `pytorch`, `torchscript` and `onnx2torch` are the runtimes that only this comparison has.
"""
