"""From a trained detector to verified, published engines: adapt, quantize, build, verify, publish.

Each precision becomes a version of its own in the model repository, if it passes the gate; the fastest that passed is
served. What was made before from the same content with the same options is taken from the cache.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import triptych
from triptych.contract import DETECTOR, MODELS
from triptych.errors import BuildError, ServerStartError
from triptych.files import sha256
from triptych.machine import cpu_features, nvidia_gpus
from triptych.serving.doctor.gathering import describe_machine
from triptych.serving.repository import DEFAULT_REPOSITORY, activate
from triptych.serving.server import Ports, TritonServer
from triptych.wire.credentials import LOCAL, Credentials
from triptych_build import ultralytics
from triptych_build.adapt import adapter
from triptych_build.adapt.adapter import Overrides
from triptych_build.adapt.on_images import look_at_images
from triptych_build.adapt.onnx_file import read_adapted_file, source_sha256
from triptych_build.built import OUTCOMES, Built
from triptych_build.cache import DEFAULT_CACHE, Cache, code_hashes
from triptych_build.publish.artifact import read_artifact
from triptych_build.publish.layers import read_layers
from triptych_build.publish.publish import copy_without_detector, publish, put_into_service
from triptych_build.publish.target import TARGETS, InstanceGroup, TargetName
from triptych_build.quantize import extremes, quantizer
from triptych_build.quantize.calibrate import Calibration, describe_calibration
from triptych_build.tensorrt import engine
from triptych_build.tensorrt.network import library
from triptych_build.tensorrt.options import Options, check_candidates
from triptych_build.tensorrt.plan import read_record
from triptych_build.verify.datasets import read_dataset
from triptych_build.verify.decoding import measure_decoding
from triptych_build.verify.gate import verify
from triptych_build.verify.latency import measure_latency
from triptych_build.verify.limits import Gate
from triptych_build.verify.report import Report, write_report
from triptych_build.verify.truth import Dataset

HERE = Path(__file__).parent


@dataclass(frozen=True)
class LineOptions:
    """What one run of the line makes, from what, and where it goes.

    Attributes:
        model: the detector: an ONNX, or a .pt for the user's own Ultralytics to export.
        precisions: a version for each.
        reference: the FP32 model that a quantized `model` is measured against; None: `model` itself.
        overrides: what the user knows better than the family's habits.
        calibration: the images that int8 ranges come from.
        min_int8_share: the least share of the layers that int8 must reach, 0..1.
        engine: how to build plans, for targets that serve them; the target says whose.
        data: labelled images to verify with; None skips the gate.
        images: where the images of a COCO JSON lie.
        gates: the limits by precision, where they are not the usual ones.
        target: what runs the detector.
        repository: the model repository.
        group: how the detector is spread over the machine.
        keep: how many versions stay.
        address: a running server that switches over at the end.
        credentials: how to connect to it.
        force: publish what the gate refuses, too.
        cache: the directory of what was made before.
    """

    model: Path
    precisions: tuple[str, ...] = ("fp32",)
    reference: Path | None = None
    overrides: Overrides = field(default_factory=Overrides)
    calibration: Calibration | None = None
    min_int8_share: float = quantizer.MIN_INT8_SHARE
    engine: Options = field(default_factory=Options)
    data: Path | None = None
    images: Path | None = None
    gates: Mapping[str, Gate] = field(default_factory=dict)
    target: TargetName = "openvino"
    repository: Path = DEFAULT_REPOSITORY
    group: InstanceGroup = field(default_factory=lambda: InstanceGroup(1))
    keep: int = 5
    address: str | None = None
    credentials: Credentials = LOCAL
    force: bool = False
    cache: Path = DEFAULT_CACHE


class Line:
    """The build line with the options of one run."""

    def __init__(self, options: LineOptions, say: Callable[[str], None]) -> None:
        """Check what can be checked before anything is made; `say` gets a sentence for each thing done."""
        if not options.repository.is_dir():
            raise BuildError(
                f"there is no model repository {options.repository}; name it with --model-repository, or lay one out "
                "with `triptych init DIR`"
            )
        self.options, self.say = options, say
        self.target = TARGETS[options.target]
        self._check_machine()
        if self.target.builder:
            check_candidates(options.overrides.candidates or 0)
        self.cache = Cache(options.cache)
        self.engine = replace(options.engine, builder=self.target.builder) if self.target.builder else None
        if self.engine and self.engine.builder == "tensorrt" and not self.engine.timing_cache:
            self.engine = replace(self.engine, timing_cache=options.cache / "timing.cache")

    def _check_machine(self) -> None:
        """Say before any work what this machine cannot do for the target.

        Raises:
            BuildError: it cannot be built here.
        """
        target = self.options.target
        if self.target.builder == "tensorrt" and not nvidia_gpus():
            raise BuildError(
                f"--target {target} needs an NVIDIA GPU, since TensorRT builds a plan for the GPU that it runs on, and "
                "this machine shows none; build where the plan is to run, or take --target tensorrt-rtx, which builds "
                "without one, or --target openvino for a CPU"
            )
        if target == "onnxruntime":
            self.say(
                "target: the Triton from pip has no ONNX Runtime backend, so that `triptych serve` cannot serve this "
                "version; it is for the container (here: --target onnxruntime-python)"
            )

    def run(self) -> list[Built]:
        """Make, verify and publish every precision that the gate lets pass; serve the fastest of them.

        Raises:
            BuildError: a step failed.
        """
        options = self.options
        adapted = self._adapt_source()
        reference = self._adapt(options.reference) if options.reference else adapted
        built = [self._make(adapted, precision) for precision in options.precisions]
        self._verify(built, reference)
        for one in built:
            if one.passed or options.force:
                self._publish(one)
        published = [one for one in built if one.version]
        if published:
            best = min(published, key=lambda one: (not one.passed, one.p50_ms))
            assert best.version is not None
            put_into_service(
                best.version,
                options.repository,
                keep=options.keep,
                address=options.address,
                credentials=options.credentials,
                say=self.say,
            )
        return built

    def _adapt_source(self) -> Path:
        model = self.options.model
        with tempfile.TemporaryDirectory(prefix="triptych-source-") as scratch:
            if model.suffix.lower() == ".pt":
                self.say(f"source: your own Ultralytics exports {model.name}")
            source = ultralytics.as_onnx(model, Path(scratch), self.options.overrides.size)
            adapted = self._adapt(source)
            self._say_all(look_at_images(source, self.options.overrides, adapted, self._images(adapted)))
            return adapted

    def _images(self, adapted: Path) -> Sequence[Path]:
        """Return the user's images: those to verify with, or else to calibrate with."""
        options = self.options
        if options.data:
            _, record = read_adapted_file(adapted)
            return read_dataset(options.data, record.spec.class_names, options.images).images
        return options.calibration.images if options.calibration else ()

    def _adapt(self, model: Path) -> Path:
        overrides = self.options.overrides
        key = [source_sha256(model), asdict(overrides), _versions("onnx", "onnx-ir"), code_hashes(HERE / "adapt")]
        path, is_old = self.cache.get("adapted", ".onnx", key, lambda out: adapter.adapt_file(model, out, overrides))
        if is_old:
            self.say(f"adapt: {model.name} was adapted before")
        else:
            self._say_all(adapter.describe(read_adapted_file(path)[1]))
        return path

    def _make(self, adapted: Path, precision: str) -> Built:
        """Make the file to publish: the graph in its precision, or a plan."""
        calibration = self.options.calibration if precision == "int8" else None
        described = _describe_calibration(calibration) if calibration else None
        graph = adapted
        if precision == "fp16" or (precision == "int8" and self.engine):  # there what int8 leaves runs in fp16
            graph = self._measured(adapted, precision)
        # A plan's builder narrows the float32 graph itself.
        if precision == "int8" or (precision != "fp32" and not self.engine):
            graph = self._quantize(graph, precision, calibration, described)
        model = self._build(graph, precision, self.engine) if self.engine else graph
        return Built(
            precision, model, described, graph=graph, layers=read_layers(read_artifact(model), self.options.target)
        )

    def _measured(self, adapted: Path, precision: str) -> Path:
        """Return the graph with what it needs float32 for on the images, if there are images."""
        images = self._images(adapted)[: extremes.MEASURED_IMAGES]
        if not images:
            self.say(
                f"quantize: {precision} goes by weights alone, since there are no images to measure activations on; "
                "name typical ones with --calibration"
            )
            return adapted
        key = [sha256(adapted), [sha256(image) for image in images], _versions("onnx", "onnxruntime")]
        key += [code_hashes(HERE / "quantize")]
        path, _ = self.cache.get("measured", ".onnx", key, lambda out: extremes.measure_file(adapted, out, images))
        if self.engine:
            self._say_all(extremes.describe(read_adapted_file(path)[0]))
        return path

    def _quantize(
        self, adapted: Path, precision: str, calibration: Calibration | None, described: dict[str, Any] | None
    ) -> Path:
        if calibration:
            self._say_all(describe_calibration(calibration))
        made_by = [_versions("onnx", "onnxruntime"), code_hashes(HERE / "quantize")]
        key = [sha256(adapted), precision, described, self.options.min_int8_share, made_by]

        def make(out: Path) -> None:
            share = self.options.min_int8_share
            quantized = quantizer.quantize_file(adapted, out, precision, calibration, min_int8_share=share)
            self._say_all(quantizer.describe(quantized, out, precision))

        graph, is_old = self.cache.get(precision, ".onnx", key, make)
        if is_old:
            self.say(f"quantize: {precision} was made before")
        return graph

    def _build(self, graph: Path, precision: str, options: Options) -> Path:
        given = asdict(replace(options, timing_cache=None))
        made_by = [library(options.builder).__version__, code_hashes(HERE / "tensorrt", HERE / "quantize")]
        key = [sha256(graph), precision, given, made_by, engine.machine(options)]

        def make(out: Path) -> None:
            self.say(f"engine: {options.builder} builds {precision}")
            engine.build(graph, precision, out, options)

        plan, is_old = self.cache.get(precision, ".plan", key, make)
        self.say(engine.summary(read_record(plan).engine, plan) + (" (built before)" if is_old else ""))
        return plan

    def _verify(self, built: Sequence[Built], reference: Path) -> None:
        """Give each precision its report, if there is something to verify with."""
        if self.options.data is None:
            self.say("verify: skipped, since there is nothing to verify with; name labelled images with --data")
            return
        _, record = read_adapted_file(reference)
        dataset = read_dataset(self.options.data, record.spec.class_names, self.options.images)
        if record.spec.decode == "scaled":
            self.say(str(measure_decoding(reference, dataset)))
        images = [sha256(image) for image in dataset.images]
        for one in built:
            one.report = self._report(one, reference, dataset, images)

    def _report(self, built: Built, reference: Path, dataset: Dataset, images: list[str]) -> dict[str, Any]:
        """Return the gate's report on one precision; `images` are the hashes of the data set's."""
        options = self.options
        gate = options.gates.get(built.precision) or Gate.for_precision(built.precision)
        served_as = self.target.served_as or options.target
        # A verdict is about this very file, on this kind of GPU.
        about = {"model_sha256": sha256(built.model), "gpu": _gpu() if self.engine else None}
        calibration = options.calibration if built.calibration else None
        key = [
            *(about, sha256(reference), asdict(gate), served_as, asdict(options.group)),
            *(images, dataset.truth, calibration and calibration.sha256()),
            code_hashes(HERE, Path(triptych.__file__).parent),
            [sha256(path) for path in _files_of_other_models(options.repository)],
            *(describe_machine(), cpu_features()),
        ]

        def make(out: Path) -> None:
            with self._served(built, served_as, out.with_suffix(".log")) as address:
                among = calibration.images if calibration else ()
                report = verify(
                    *(address, reference, dataset, gate),
                    precision=built.precision,
                    graph=built.graph,
                    calibration=among,
                )
            write_report(report, out)

        path, is_old = self.cache.get(f"report-{built.precision}", ".json", key, make)
        report = Report.from_dict(json.loads(path.read_text()))
        if is_old:  # Accuracy stays as it was. How fast it is depends on what else runs.
            with self._served(built, served_as, path.with_suffix(".log")) as address:
                has_limit = gate.p95_ms is not None
                report = report.with_latency(measure_latency(address, dataset.images, has_limit=has_limit))
            write_report(report, path)
        when = " (accuracy was measured before)" if is_old else ""
        self.say(f"verify: {built.precision} {OUTCOMES[report.outcome]}{when}; the report is {path.with_suffix('.md')}")
        return report.to_dict() | about

    @contextmanager
    def _served(self, built: Built, served_as: TargetName, log: Path) -> Iterator[str]:
        """Serve one precision with the repository's other models, and yield the address."""
        with tempfile.TemporaryDirectory(prefix="triptych-verify-") as scratch:
            repository = copy_without_detector(self.options.repository, Path(scratch) / "models")
            version = publish(built.model, served_as, repository, self.options.group, layers=built.layers)
            activate(repository, int(version.name))
            try:
                with TritonServer(repository, ports=Ports.free(), log_path=log) as server:
                    yield server.grpc_address
            except ServerStartError as error:
                raise BuildError(
                    f"{built.precision} cannot be served here, and so not verified: {error}; build it where it is "
                    "to run, or without --data"
                ) from error

    def _say_all(self, lines: Sequence[str]) -> None:
        for line in lines:
            self.say(line)

    def _publish(self, built: Built) -> None:
        options = self.options
        built.version = publish(
            built.model,
            options.target,
            options.repository,
            options.group,
            calibration=built.calibration,
            verification=built.report,
            layers=built.layers,
        )
        self.say(f"publish: {built.version} for {options.target} in {built.precision}")


def _describe_calibration(calibration: Calibration) -> dict[str, Any]:
    """Return what the manifest says of a calibration."""
    return {
        "images": len(calibration.images),
        "sha256": calibration.sha256(),
        "method": calibration.method,
        "exclude": list(calibration.exclude),
        "scan": calibration.scan,
    }


def _files_of_other_models(repository: Path) -> list[Path]:
    """Return the code and the configuration of the models around the detector."""
    models = [repository / model.name for model in MODELS if model is not DETECTOR]
    return sorted(path for model in models for path in model.rglob("*.p*") if path.suffix in (".py", ".pbtxt"))


def _gpu() -> dict[str, str] | None:
    """Return the GPU that the gate measures on."""
    gpus = nvidia_gpus()
    return asdict(gpus[0]) if gpus else None


def _versions(*packages: str) -> dict[str, str]:
    return {package: version(package) for package in packages}
