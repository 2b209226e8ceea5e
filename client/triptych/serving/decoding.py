"""Where preprocess decodes JPEGs: on the CPU's cores, or on the GPUs; and what a server needs for that.

Pixels that were decoded on a GPU stay there up to the detector, in a pool of Triton's. What the pool has no room for,
Triton 2.51 hands on through the host's memory, damaged and without an error. So preprocess sends nothing from there,
and the detector refuses what comes from there.
"""

from __future__ import annotations

from tritonclient.grpc import model_config_pb2

from triptych.contract import DETECTOR, MAX_BATCH, PREPROCESS, DecodedBy, DetectorSpec
from triptych.errors import ContractError, ServerStartError
from triptych.machine import nvidia_gpus
from triptych.serving.queues import ONE_BY_ONE
from triptych.vision.gpu import missing_packages

PARAMETER = "decode"
"""The parameter of preprocess that says it."""

PIXELS_FROM = "pixels_from"
"""The parameter of a detector that says the same: "gpu" if it takes pixels on a GPU alone."""

DEVICE_INPUTS = "FORCE_CPU_ONLY_INPUT_TENSORS"
"""The parameter that Triton's Python backend reads: unless it is "no", inputs on a GPU are copied to the host first."""

POOL_BATCHES = 32
"""How many largest batches of pixels fit on a GPU between the stages. What does not is refused."""


def decoded_by(config: model_config_pb2.ModelConfig) -> DecodedBy:
    """Return where JPEGs are decoded, by a configuration of preprocess."""
    return "gpu" if PARAMETER in config.parameters and config.parameters[PARAMETER].string_value == "gpu" else "cpu"


def takes_gpu_pixels(detector: model_config_pb2.ModelConfig) -> bool:
    """Return whether a detector takes pixels on a GPU alone."""
    return PIXELS_FROM in detector.parameters and detector.parameters[PIXELS_FROM].string_value == "gpu"


def decode_by(config: model_config_pb2.ModelConfig, where: DecodedBy) -> None:
    """Have preprocess decode JPEGs on the CPU or on every GPU.

    On the CPU each request goes to an instance of its own. A GPU decodes the images of all requests that wait together.

    Args:
        config: the configuration it is loaded with.
        where: where.

    Raises:
        ContractError: an older release laid out this preprocess.
    """
    if PARAMETER not in config.parameters:
        if where == "cpu":
            return
        raise ContractError(
            f"an older Triptych laid out {PREPROCESS.name}, which decodes on the CPU alone; move "
            f"model_repository/{PREPROCESS.name} away, and `triptych init DIR` lays out what is missing in DIR"
        )
    config.parameters[PARAMETER].string_value = where
    if not config.instance_group:
        config.instance_group.add()
    group, preferred = config.instance_group[0], config.dynamic_batching.preferred_batch_size
    if where == "gpu":
        group.kind = group.KIND_GPU
        if list(preferred) == ONE_BY_ONE:
            del preferred[:]
    else:
        group.kind = group.KIND_CPU
        if not preferred:
            preferred.extend(ONE_BY_ONE)


def take_gpu_pixels(detector: model_config_pb2.ModelConfig) -> None:
    """Have a detector take pixels on a GPU alone, and refuse others.

    That includes those of its warm-up, so that goes: its processes warm themselves up then.

    Raises:
        ContractError: it cannot.
    """
    if DEVICE_INPUTS not in detector.parameters or detector.parameters[DEVICE_INPUTS].string_value != "no":
        raise ContractError(
            f"{DETECTOR.name} does not take pixels on a GPU; `triptych publish PLAN --target tensorrt-python` "
            "publishes one that does, or serve with --decode cpu"
        )
    detector.parameters[PIXELS_FROM].string_value = "gpu"
    del detector.model_warmup[:]


def check_gpu_decoding() -> None:
    """Make sure that JPEGs can be decoded on a GPU of this machine.

    Raises:
        ServerStartError: a package is missing, or there is no GPU.
    """
    if missing := missing_packages():
        raise ServerStartError(f"to decode on a GPU, {missing}, or serve with --decode cpu")
    if not nvidia_gpus():
        raise ServerStartError(
            "to decode on a GPU takes one, and NVIDIA's driver lists none on this machine; serve with --decode cpu"
        )


def pool_options(spec: DetectorSpec) -> list[str]:
    """Return the server's options for the memory in which pixels stay on each GPU between the stages."""
    size = POOL_BATCHES * MAX_BATCH * spec.height * spec.width * 3
    return [
        part for number, _ in enumerate(nvidia_gpus()) for part in ("--cuda-memory-pool-byte-size", f"{number}:{size}")
    ]
