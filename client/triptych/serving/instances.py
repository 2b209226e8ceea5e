"""How many instances a stage gets, and how many threads each of them: decided where it is served.

A number that somebody chose stays: the option of a command, or a count in a `config.pbtxt`.
"""

from __future__ import annotations

from collections.abc import Mapping

from tritonclient.grpc import model_config_pb2

from triptych.contract import DETECTOR, POSTPROCESS, PREPROCESS
from triptych.serving.queues import THREADS

CHOSEN_FOR_CORES = "chosen_for_cores"
"""The parameter of a detector with the cores that its instances and threads were chosen for, if nobody named them."""


GPU_DECODERS = 3
"""Instances of preprocess on each GPU that decodes: one asks the GPU while the others unpack and pack."""


def default_instances(cores: int, *, detector_on_gpu: bool = False, decodes_on_gpu: bool = False) -> dict[str, int]:
    """Return the instances of the models around the detector, by model name, for a machine with that many CPU cores.

    Decoding and resizing an image takes a core for milliseconds, so half of the cores may do it at a time.
    Postprocess takes well under a millisecond, so it gets an eighth. Where the detector leaves the cores to them, both
    get half as much again and more. Where GPUs decode, each gets `GPU_DECODERS` of preprocess, and postprocess is what
    needs the cores most.
    """
    if decodes_on_gpu:
        return {PREPROCESS.name: GPU_DECODERS, POSTPROCESS.name: max(1, cores * 3 // 8)}
    if detector_on_gpu:
        return {PREPROCESS.name: max(1, cores * 3 // 4), POSTPROCESS.name: max(1, cores // 4)}
    return {PREPROCESS.name: max(1, cores // 2), POSTPROCESS.name: max(1, cores // 8)}


def detector_instances(cores: int) -> tuple[int, int]:
    """Return the instances of a detector on CPUs, and the threads of each, for that many cores.

    That is one single-threaded instance a core up to 8, then more threads: the most throughput.
    """
    count = min(cores, 8)
    return count, cores // count


def fit_instances(
    config: model_config_pb2.ModelConfig,
    cores: int,
    *,
    written: int,
    asked: Mapping[str, int],
    detector_on_gpu: bool = False,
    decodes_on_gpu: bool = False,
) -> str:
    """Give a stage its instances for the machine that serves it, and return in a few words who decided that.

    Args:
        config: the configuration it is loaded with.
        cores: of the machine.
        written: the count in its file; 0 if there is none.
        asked: counts that the caller asks for, by stage.
        detector_on_gpu: whether the detector leaves the cores to the other stages.
        decodes_on_gpu: whether preprocess does, too.
    """
    if not config.instance_group:
        config.instance_group.add(count=1)
    group = config.instance_group[0]
    if config.name in asked:
        group.count = asked[config.name]
        return "as asked for"
    if config.name == DETECTOR.name:
        return _fit_detector(config, cores)
    if written:
        return "as its config.pbtxt says"
    instances = default_instances(cores, detector_on_gpu=detector_on_gpu, decodes_on_gpu=decodes_on_gpu)
    group.count = instances[config.name]
    gpu = " and a GPU that decodes" if decodes_on_gpu else " and a GPU" if detector_on_gpu else ""
    return f"decided for {_cores(cores)}{gpu}"


def fit_alike(config: model_config_pb2.ModelConfig, served: model_config_pb2.ModelConfig) -> None:
    """Give a version of the detector the instances and the queue of the one that is served.

    That is, if nobody has chosen the instances of either.
    """
    if CHOSEN_FOR_CORES in served.parameters and CHOSEN_FOR_CORES in config.parameters:
        config.dynamic_batching.CopyFrom(served.dynamic_batching)
        _fit_detector(config, int(served.parameters[CHOSEN_FOR_CORES].string_value))


def _fit_detector(config: model_config_pb2.ModelConfig, cores: int) -> str:
    """Spread a detector over the cores, unless it is on a GPU, or somebody has chosen its instances or threads."""
    group = config.instance_group[0]
    threads = next((config.parameters[key] for key in THREADS if key in config.parameters), None)
    if threads is None:
        return "as it was published"
    each = threads_each(int(threads.string_value))
    # Without the check `in`, protobuf would add the parameter.
    chosen_for = config.parameters[CHOSEN_FOR_CORES].string_value if CHOSEN_FOR_CORES in config.parameters else ""
    if not chosen_for:
        return f"{each}, as it was published"
    if (group.count, int(threads.string_value)) != detector_instances(int(chosen_for)):
        return f"{each}, as its config.pbtxt says"
    group.count, per_instance = detector_instances(cores)
    threads.string_value, config.parameters[CHOSEN_FOR_CORES].string_value = str(per_instance), str(cores)
    return f"{threads_each(per_instance)}, decided for {_cores(cores)}"


def threads_each(threads: int) -> str:
    """Say in words how many threads each instance has."""
    return f"{threads} thread{'' if threads == 1 else 's'} each"


def _cores(cores: int) -> str:
    return f"{cores} core{'' if cores == 1 else 's'}"
