"""The configurations with which the stages are loaded here: their files', with instances and queues for the machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tritonclient.grpc import model_config_pb2

from triptych.contract import DETECTOR, PREPROCESS, STAGES, DecodedBy
from triptych.errors import ContractError
from triptych.machine import available_cores
from triptych.model_config import read_config, read_detector_spec
from triptych.serving import preflight
from triptych.serving.decoding import decode_by, decoded_by, pool_options, take_gpu_pixels
from triptych.serving.instances import fit_instances, threads_each
from triptych.serving.queues import cores_of, fit_queue, is_on_gpu
from triptych.serving.tuned import Settings, read_tuned
from triptych.wire.model_control import processes_of


class Fitting:
    """Fits the stages of a model repository to this machine.

    Attributes:
        decisions: who decided how many instances a stage has, in a few words by its name; of those that were fitted.
        remark: why what `triptych tune` found is not applied here; empty if it is, or if there is nothing.
    """

    def __init__(
        self,
        model_repository: Path,
        instances: Mapping[str, int] | None = None,
        queue_budget_ms: int | None = None,
        settings: Settings | None = None,
        decode: DecodedBy | None = None,
    ) -> None:
        """Prepare.

        Args:
            model_repository: the directory with the models of the contract.
            instances: instance counts by stage, over what `fit_instances` decides and over the files' own.
            queue_budget_ms: how long a request may wait in one queue; None: as the files say.
            settings: of all stages that `instances` does not name; None: what `triptych tune` found, if it did here.
            decode: where preprocess decodes JPEGs; None: as its file says.

        Raises:
            ContractError: `instances` names a stage that does not exist, or a count below 1.
        """
        names = [stage.name for stage in STAGES]
        for name, count in (instances or {}).items():
            if name not in names or count < 1:
                raise ContractError(f"instances must be at least 1 of {', '.join(names)}, but got {count} of {name}")
        self.decisions: dict[str, str] = {}
        self.remark = ""
        self._model_repository, self._decode = model_repository, decode
        self._settings, self._settings_by = settings, "as asked for"
        if settings is None:
            tuned, self.remark = read_tuned(model_repository)
            if tuned and self.decoded_by == "gpu":
                self.remark = "tuned.json is not applied, since it was measured with JPEGs decoded on the CPU"
            elif tuned:
                self._settings, self._settings_by = tuned.settings, f"as tuned on {tuned.date[:10]}"
        self._instances = dict(instances or {})
        self._queue_budget_ms = queue_budget_ms

    @property
    def decoded_by(self) -> DecodedBy:
        """Where preprocess will decode JPEGs."""
        try:
            return self._decode or decoded_by(read_config(self._model_repository / PREPROCESS.name))
        except ContractError:
            return "cpu"  # the server's own checks say what is wrong with the file

    def config(self, stage: str) -> model_config_pb2.ModelConfig:
        """Return the configuration to load a stage with.

        Raises:
            ContractError: its file is not there or cannot be read.
        """
        config = self._read(stage)
        written_for = cores_of(config)
        self._give_instances(config)
        fit_queue(config, available_cores(), written_for, self._queue_budget_ms)
        return config

    def settings(self) -> Settings:
        """Return what the stages will be served with.

        Raises:
            ContractError: a stage's file is not there or cannot be read.
        """
        configs = {stage.name: self._read(stage.name) for stage in STAGES}
        for config in configs.values():
            self._give_instances(config)
        return Settings.of(configs)

    def _read(self, stage: str) -> model_config_pb2.ModelConfig:
        config = read_config(self._model_repository / stage)
        if stage == PREPROCESS.name and self._decode:
            decode_by(config, self._decode)
        if stage == DETECTOR.name and self.decoded_by == "gpu":
            take_gpu_pixels(config)
        return config

    def _give_instances(self, config: model_config_pb2.ModelConfig) -> None:
        stage, cores = config.name, available_cores()
        written = sum(group.count for group in config.instance_group)
        detector = config if stage == DETECTOR.name else read_config(self._model_repository / DETECTOR.name)
        decided = fit_instances(
            config,
            cores,
            written=written,
            asked=self._instances,
            detector_on_gpu=is_on_gpu(detector),
            decodes_on_gpu=self.decoded_by == "gpu",
        )
        if self._settings and stage not in self._instances:
            self._settings.apply(config, cores)
            threads = self._settings.threads if stage == DETECTOR.name else None
            decided = f"{threads_each(threads)}, {self._settings_by}" if threads else self._settings_by
        self.decisions[stage] = decided

    def pool_options(self) -> list[str]:
        """Return the server's options for the memory of GPUs that it needs itself.

        Raises:
            ContractError: the detector's file is not there or cannot be read.
        """
        return pool_options(read_detector_spec(self._model_repository)) if self.decoded_by == "gpu" else []

    def shared_memory_bytes(self) -> int | None:
        """Return what the stages need at most, with as many instances as they will have; None if it is not known."""
        try:
            instances = {stage.name: processes_of(self.config(stage.name)) for stage in STAGES}
            return preflight.shared_memory_bytes(instances, read_detector_spec(self._model_repository))
        except ContractError:
            return None  # when it is loaded, the stage says what is wrong with it
