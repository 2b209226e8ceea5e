"""Serve the usual ensemble (`tutorial_repository`) on a GPU, to load it beside ours, with its ONNX as a TensorRT plan.

    python benchmarks/tutorial_gpu.py demo/pcb.onnx --plan tutorial.plan --grpc-port 9001 &
    triptych loadtest --address 127.0.0.1:9001 --images boards --no-traces

The plan is FP16, as `trtexec --fp16` makes it; it is built if it is not there. Ctrl-C or SIGTERM ends the server.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from fixtures import ROOT

from triptych.runtimes._tensorrt import library, make_logger
from triptych.serving import Ports, TritonServer


def build(source: Path, plan: Path, timing_cache: Path | None) -> None:
    """Build an FP16 plan for batches of 1 to 16; TensorRT 8 and newer."""
    trt = library("tensorrt")
    logger = make_logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(source.read_bytes()):
        raise SystemExit(f"TensorRT does not take {source}: {parser.get_error(0).desc()}")
    config = builder.create_builder_config()
    config.set_flag(trt.BuilderFlag.FP16)
    convolutions = trt.TacticSource.EDGE_MASK_CONVOLUTIONS, trt.TacticSource.JIT_CONVOLUTIONS
    config.set_tactic_sources(sum(1 << int(tactics) for tactics in convolutions))
    if timing_cache:
        config.set_timing_cache(config.create_timing_cache(timing_cache.read_bytes()), ignore_mismatch=False)
    image = tuple(network.get_input(0).shape)[1:]
    profile = builder.create_optimization_profile()
    profile.set_shape(network.get_input(0).name, *((size, *image) for size in (1, 8, 16)))
    config.add_optimization_profile(profile)
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise SystemExit(f"TensorRT could not build {source}: {logger.last_words()}")
    plan.write_bytes(memoryview(serialized))


def repository(plan: Path, directory: Path) -> Path:
    """Copy the baseline's repository, with its detector on the GPU."""
    copy = directory / "tutorial_repository"
    shutil.copytree(ROOT / "benchmarks" / "tutorial_repository", copy)
    detector = copy / "detector"
    shutil.copyfile(detector / "gpu" / "config.pbtxt", detector / "config.pbtxt")
    shutil.copyfile(detector / "gpu" / "model.py", detector / "1" / "model.py")
    shutil.copyfile(plan, detector / "1" / "model.plan")
    return copy


def main() -> None:
    """Build the plan where it is missing, and serve until a signal comes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("source", type=Path, help="source ONNX, raw head")
    parser.add_argument("--plan", type=Path, required=True, help="its plan; built if it is not there")
    parser.add_argument("--timing-cache", type=Path, help="that of `triptych engine`, whose kernels need no new timing")
    parser.add_argument("--grpc-port", type=int, default=8001, help="the metrics' port is the next one (8001)")
    parser.add_argument("--log", type=Path, default=Path("tutorial.log"), help="the server's log (tutorial.log)")
    arguments = parser.parse_args()
    if not arguments.plan.exists():
        build(arguments.source, arguments.plan, arguments.timing_cache)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with tempfile.TemporaryDirectory(prefix="triptych-benchmark-") as name:
        ports = Ports(grpc=arguments.grpc_port, metrics=arguments.grpc_port + 1)
        served = repository(arguments.plan, Path(name))
        with TritonServer(served, ports=ports, log_path=arguments.log) as server:
            print(f"serving the usual ensemble: gRPC {server.grpc_address}", flush=True)
            signal.pause()


if __name__ == "__main__":
    main()
