"""Write a detector that finds what the demo's does and takes width² the work: a stand-in for a large network.

    python benchmarks/heavy.py demo/pcb.onnx heavy.onnx --width 4

Every channel of a hidden layer is there `width` times, and the next layer weighs each copy `1 / width`. So the outputs
are the same but for rounding, the gate can be asked, and a runtime calculates all of it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper


def widen(model: onnx.ModelProto, width: int) -> int:
    """Widen every convolution that a ReLU follows, and what reads it; return the multiplications of one image."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    before_relu = {node.input[0] for node in model.graph.node if node.op_type == "Relu"}
    shapes = {value.name: value for value in onnx.shape_inference.infer_shapes(model).graph.value_info}
    images = model.graph.input[0].name
    work = 0
    for node in model.graph.node:
        if node.op_type != "Conv":
            continue
        kernel = numpy_helper.to_array(weights[node.input[1]])
        if node.input[0] != images:
            kernel = np.repeat(kernel, width, 1) / np.float32(width)
        if node.output[0] in before_relu:
            kernel = np.repeat(kernel, width, 0)
            bias = np.repeat(numpy_helper.to_array(weights[node.input[2]]), width)
            weights[node.input[2]].CopyFrom(numpy_helper.from_array(bias, node.input[2]))
        weights[node.input[1]].CopyFrom(numpy_helper.from_array(kernel, node.input[1]))
        rows, columns = (size.dim_value for size in shapes[node.output[0]].type.tensor_type.shape.dim[2:])
        work += kernel.size * rows * columns
    del model.graph.value_info[:]
    return work


def main() -> None:
    """Widen, check that the file is sound, write it, and say how large it is."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("source", type=Path, help="ONNX of convolutions with biases and ReLU, such as the demo's")
    parser.add_argument("out", type=Path, help="the ONNX to write")
    parser.add_argument("--width", type=int, default=4, help="how often each channel is there (4)")
    arguments = parser.parse_args()
    model = onnx.load(arguments.source)
    work = widen(model, arguments.width)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, arguments.out)
    print(f"{arguments.out}: {arguments.out.stat().st_size / 4e6:.1f} M parameters, {work / 1e9:.1f} G multiplications")


if __name__ == "__main__":
    main()
