"""Read Triton's model configuration files, with Triton's own protobuf."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from triptych.contract import CANDIDATE_FIELDS, CANDIDATES, DETECTOR, PIXELS, DetectorSpec
from triptych.errors import ContractError


def read_config(model_directory: Path) -> model_config_pb2.ModelConfig:
    """Read the `config.pbtxt` of one model, or of one version of it. A file without a name gets that of the model.

    Raises:
        ContractError: there is no such file, it cannot be parsed, or it is of a model of another name, which Triton
            would not load from there.
    """
    path = model_directory / "config.pbtxt"
    config = model_config_pb2.ModelConfig()
    try:
        text_format.Parse(path.read_text(), config)
    except FileNotFoundError as error:
        hint = "publish one with `triptych build MODEL.onnx`" if model_directory.name == DETECTOR.name else "restore it"
        raise ContractError(f"there is no {path}; {hint}") from error
    except text_format.ParseError as error:
        raise ContractError(f"{path} is not a model configuration: {error}") from error
    is_version = model_directory.name.isdecimal()
    name = model_directory.parent.name if is_version else model_directory.name
    if config.name not in ("", name):
        raise ContractError(
            f"{path} is of a model called {config.name!r}, but lies in the directory of {name!r}; leave the name out"
        )
    config.name = name
    return config


def detector_spec(config: model_config_pb2.ModelConfig) -> DetectorSpec:
    """Return the input size, the classes and the defaults of a detector, from its configuration.

    Raises:
        ContractError: the configuration does not describe a detector of the contract.
    """
    pixels = [tensor for tensor in config.input if tensor.name == PIXELS.name]
    if len(pixels) != 1 or len(pixels[0].dims) != 3:
        inputs = ", ".join(f"{tensor.name} {list(tensor.dims)}" for tensor in config.input) or "none"
        raise ContractError(f"the detector must take one input {PIXELS.name} [height, width, 3], but got {inputs}")
    height, width, _ = pixels[0].dims
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    return DetectorSpec.from_parameters(width, height, parameters)


def read_detector_spec(model_repository: Path) -> DetectorSpec:
    """Return the spec of the detector in a repository."""
    return detector_spec(read_config(model_repository / DETECTOR.name))


def names_itself(config: model_config_pb2.ModelConfig) -> bool:
    """Return whether a detector says in its candidates whose class names its labels mean."""
    widths = [tensor.dims[-1] for tensor in config.output if tensor.name == CANDIDATES.name]
    return config.backend == "python" and widths == [len(CANDIDATE_FIELDS) + 1]


def tell_stage(config: model_config_pb2.ModelConfig, detector: model_config_pb2.ModelConfig) -> None:
    """Put the configuration of the detector that is served into that of a stage that is about to be loaded."""
    config.parameters[DETECTOR.name].string_value = text_format.MessageToString(detector, as_one_line=True)


def detector_of_stage(args: Mapping[str, str]) -> model_config_pb2.ModelConfig:
    """Return the configuration of the detector that a stage works with.

    Whoever starts a stage while a detector is served passes the configuration on that it is served with
    (`tell_stage`), so that a stage that comes back agrees with what is served and not with what was published since.
    If nobody did, Triton loads the whole repository now, the detector from the same file.

    Args:
        args: what Triton gives the `initialize` of the stage's model.py.

    Raises:
        ContractError: the file is missing, or cannot be parsed.
    """
    passed = json.loads(args["model_config"])["parameters"].get(DETECTOR.name)
    if passed is None:
        return read_config(Path(args["model_repository"]).parent / DETECTOR.name)
    return text_format.Parse(passed["string_value"], model_config_pb2.ModelConfig())


def version_directory(args: Mapping[str, str], config: model_config_pb2.ModelConfig) -> Path:
    """Return where the files of a stage's detector are; see `detector_of_stage`."""
    return Path(args["model_repository"]).parent / DETECTOR.name / version_of(config)


def version_of(config: model_config_pb2.ModelConfig) -> str:
    """Return the version of the detector that a configuration is of."""
    return str(next(iter(config.version_policy.specific.versions), 1))
