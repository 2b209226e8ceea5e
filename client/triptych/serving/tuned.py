"""What `triptych tune` found for a machine: a file in the model repository, which every later start there applies.

It holds for the machine and the detector that were measured, and for no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
from tritonclient.grpc import model_config_pb2

from triptych.contract import DETECTOR
from triptych.machine import available_cores, cpu_model, nvidia_gpus
from triptych.serving.instances import CHOSEN_FOR_CORES
from triptych.serving.queues import ONE_BY_ONE, THREADS
from triptych.serving.repository import versions

FILE = "tuned.json"
"""Its name in the model repository. `triptych.measure.tuning` writes it, with all that was measured."""

AtLeast1 = Annotated[int, msgspec.Meta(ge=1)]


@dataclass(frozen=True)
class Settings:
    """What the stages are served with.

    Attributes:
        preprocess, postprocess: instances.
        detector: instances; on GPUs, of each.
        threads: CPU threads of each instance of the detector; None of a detector on a GPU.
        batch: images that the detector's batcher likes to gather from several requests; 1: it gathers none.
        delay_us: how long it may hold a request back for others to join, in microseconds.
    """

    preprocess: AtLeast1
    detector: AtLeast1
    postprocess: AtLeast1
    threads: AtLeast1 | None
    batch: AtLeast1
    delay_us: Annotated[int, msgspec.Meta(ge=0)]

    @classmethod
    def of(cls, configs: Mapping[str, model_config_pb2.ModelConfig]) -> Settings:
        """Read them from the stages' configurations, by name."""
        config = configs[DETECTOR.name]
        counts = {name: config.instance_group[0].count for name, config in configs.items()}
        threads = next((config.parameters[key].string_value for key in THREADS if key in config.parameters), None)
        gathers, preferred = config.HasField("dynamic_batching"), config.dynamic_batching.preferred_batch_size
        return cls(
            **counts,
            threads=int(threads) if threads else None,
            batch=max(preferred, default=config.max_batch_size) if gathers else 1,
            delay_us=config.dynamic_batching.max_queue_delay_microseconds,
        )

    def of_stage(self, stage: str) -> int:
        """Return the instances of a stage."""
        return int(getattr(self, stage))

    def apply(self, config: model_config_pb2.ModelConfig, cores: int) -> None:
        """Give a stage these settings.

        Args:
            config: of the stage, with an instance group.
            cores: of the machine.
        """
        config.instance_group[0].count = self.of_stage(config.name)
        if config.name != DETECTOR.name:
            return
        for key in THREADS:
            if self.threads and key in config.parameters:
                config.parameters[key].string_value = str(self.threads)
        if CHOSEN_FOR_CORES in config.parameters:  # for the next version, which nobody has tuned
            config.parameters[CHOSEN_FOR_CORES].string_value = str(cores)
        batching = config.dynamic_batching
        del batching.preferred_batch_size[:]
        if self.batch < config.max_batch_size:
            batching.preferred_batch_size.extend([self.batch] if self.batch > 1 else ONE_BY_ONE)
        batching.max_queue_delay_microseconds = self.delay_us

    def __str__(self) -> str:
        """Such as `preprocess 12, detector 4, postprocess 4, batches of 16, delay 500 µs`."""
        threads = f" of {self.threads} thread{'s' if self.threads > 1 else ''}" if self.threads else ""
        batching = f"batches of {self.batch}, delay {self.delay_us} µs" if self.batch > 1 else "no batching"
        return (
            f"preprocess {self.preprocess}, detector {self.detector}{threads}, postprocess {self.postprocess}, "
            f"{batching}"
        )


@dataclass(frozen=True)
class Place:
    """What settings were measured for.

    Attributes:
        cpu: the processor's name.
        cores: cores that the server could use.
        gpus: their names.
        detector: which file was served: the SHA-256 of the model, and its target; else the version's number.
    """

    cpu: str
    cores: int
    gpus: list[str]
    detector: str

    @classmethod
    def here(cls, model_repository: Path) -> Place:
        """Return this machine, and what the repository serves."""
        served = next((version for version in versions(model_repository) if version.is_served), None)
        manifest = served.manifest if served else {}
        known = (
            f"{manifest['target']} {manifest['model_sha256']}" if {"target", "model_sha256"} <= set(manifest) else ""
        )
        number = f"version {served.number}" if served else "none"
        return cls(cpu_model(), available_cores(), [gpu.name for gpu in nvidia_gpus()], known or number)

    @property
    def machine(self) -> str:
        """The machine in words."""
        gpus = f" with {', '.join(self.gpus)}" if self.gpus else ""
        return f"{self.cores} core{'s' if self.cores > 1 else ''} of {self.cpu}{gpus}"


@dataclass(frozen=True)
class Tuned:
    """Settings that were measured to be better than those before.

    Attributes:
        settings: what to serve with.
        place: where that holds.
        date: when it was measured, UTC, ISO 8601.
    """

    settings: Settings
    place: Place
    date: str


@dataclass(frozen=True)
class _File:
    tuned: Tuned | None = None


def read_tuned(model_repository: Path) -> tuple[Tuned | None, str]:
    """Return what was tuned for this machine and this detector; or None, and why what there is does not hold here."""
    path = model_repository / FILE
    again = "`triptych tune` measures anew"
    try:
        tuned = msgspec.json.decode(path.read_bytes(), type=_File).tuned
    except FileNotFoundError:
        return None, ""
    except (OSError, msgspec.DecodeError) as error:
        return None, f"{path} is not applied, since it cannot be read ({error}); {again}"
    if tuned is None:
        return None, f"{path} is not applied, since it names no settings; {again}"
    here = Place.here(model_repository)
    if tuned.place.machine != here.machine:
        return None, f"{path} is not applied: it is for {tuned.place.machine}, and this is {here.machine}; {again}"
    if tuned.place.detector != here.detector:
        return None, f"{path} is not applied: it is for another detector than the one that is served; {again}"
    return tuned, ""
