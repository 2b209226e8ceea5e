"""From a trained detector to verified, published engines: adapt, quantize, build, verify, publish.

python build MODEL.onnx
python build MODEL.onnx --precision fp32 fp16 int8 --calibration IMAGES --data LABELS --target tensorrt

Each precision becomes a version of its own in the model repository, if it passes the gate; the fastest that passed is
served. What was made before from the same content with the same options is taken from the cache.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from triptych.cli.console import run
from triptych.contract import MODELS
from triptych.errors import BuildError, ServerStartError
from triptych.files import atomic_write
from triptych.serving.repository import activate
from triptych.serving.server import Ports, TritonServer
from triptych_build import ultralytics as source
from triptych_build.adapt import adapter as adapt
from triptych_build.publish import publish
from triptych_build.quantize import quantize
from triptych_build.quantize.quantize import Calibration
from triptych_build.tensorrt import engine
from triptych_build.tensorrt.network import library
from triptych_build.tensorrt.plan import read_record
from triptych_build.verify import datasets as labels
from triptych_build.verify import gate as verify

DEFAULT_CACHE = Path(".triptych/cache")


class Cache:
    """Files by the content that they were made from."""

    def __init__(self, directory: Path) -> None:
        """Keep them in `directory`, which is made when it is needed."""
        self._directory = directory

    def get(self, step: str, suffix: str, made_from: object, make: Callable[[Path], Any]) -> tuple[Path, bool]:
        """The file that `make` wrote for this content, now or before; and whether it was there.

        Args:
            step: what is made, the beginning of its name.
            suffix: its end.
            made_from: all that it depends on, as plain values.
            make: writes the file; it must be whole or not there.
        """
        text = json.dumps(made_from, sort_keys=True, default=str)
        path = self._directory / f"{step}-{hashlib.sha256(text.encode()).hexdigest()[:16]}{suffix}"
        if found := path.is_file():
            path.touch()
        else:
            make(path)
        return path, found


@dataclass
class Built:
    """One precision on its way through the line.

    Attributes:
        precision: its name.
        model: what is published: an ONNX or a plan.
        calibration: what the manifest says of the images that its ranges came from; None without any.
        report: the gate's, as plain values; None if nothing was there to verify with.
        version: where it was published; None if the gate refused it.
    """

    precision: str
    model: Path
    calibration: dict[str, Any] | None
    report: dict[str, Any] | None = None
    version: Path | None = None

    @property
    def passed(self) -> bool:
        """Whether nothing speaks against it."""
        return self.report is None or bool(self.report["passed"])

    @property
    def p50_ms(self) -> float:
        """Latency through the ensemble, one request at a time."""
        return float(self.report["latency_ms"]["p50"]) if self.report else float("inf")

    @property
    def points(self) -> float:
        """mAP50-95 of the deployed detector, 0..100."""
        return 100 * float(self.report["deployed"]["map50_95"]) if self.report else 0.0


class Line:
    """The build line with the options of one run."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        """Check what can be checked before anything is made."""
        self.arguments = arguments
        self.target = publish.TARGETS[arguments.target]
        self.group = publish.group_from(arguments)
        self.cache = Cache(arguments.cache)
        self.options = engine.options_from(arguments, self.target.builder) if self.target.builder else None
        if self.options and self.options.builder == "tensorrt" and not self.options.timing_cache:
            self.options = replace(self.options, timing_cache=arguments.cache / "timing.cache")
        self.calibration = quantize.calibration_from(arguments) if "int8" in arguments.precision else None
        if not arguments.repository.is_dir():
            raise BuildError(f"there is no model repository {arguments.repository}; name it with --repository")

    def run(self) -> None:
        """Make, verify and publish every precision.

        Raises:
            BuildError: a step failed, or the gate refused a precision; those that passed are published all the same.
        """
        arguments = self.arguments
        with tempfile.TemporaryDirectory(prefix="triptych-source-") as scratch:
            adapted = self._adapt(source.as_onnx(arguments.model, Path(scratch), arguments.size))
        reference = self._adapt(arguments.reference) if arguments.reference else adapted
        made = [self._make(adapted, precision) for precision in arguments.precision]
        dataset = self._dataset(reference)
        images = [adapt.sha256(image) for image in dataset.images] if dataset else []
        for each in made:
            each.report = self._verify(each, reference, dataset, images) if dataset else None
            if each.passed or arguments.force:
                each.version = publish.publish(
                    each.model,
                    arguments.target,
                    arguments.repository,
                    self.group,
                    calibration=each.calibration,
                    verification=each.report,
                )
                print(f"publish: {each.version} for {arguments.target} in {each.precision}")
        published = [each for each in made if each.version]
        if published:
            best = min(published, key=lambda each: (not each.passed, each.p50_ms))
            assert best.version is not None
            publish.serve_from(arguments, best.version)
        _print_summary(made)
        if refused := [each for each in made if not each.passed]:
            assert refused[0].report is not None
            names = " and ".join(each.precision for each in refused)
            verdict = refused[0].report["verdict"].removeprefix("refused: ")
            if not arguments.force:
                raise BuildError(f"{names} was not published: {verdict}")
            print(f"verify: {names} was published all the same, as --force says: {verdict}")

    def _adapt(self, model: Path) -> Path:
        overrides = adapt.overrides_from(self.arguments)
        key = [
            adapt.sha256(model),
            asdict(overrides),
            _tools("onnx"),
            _code("adapt"),
        ]
        path, found = self.cache.get("adapted", ".onnx", key, lambda out: adapt.adapt_file(model, out, overrides))
        if found:
            print(f"adapt: {model.name} was adapted before")
        return path

    def _make(self, adapted: Path, precision: str) -> Built:
        """The file to publish: the graph in its precision, or a plan."""
        calibration = self.calibration if precision == "int8" else None
        graph = adapted
        told = _told(calibration) if calibration else None
        if precision == "int8" or (precision != "fp32" and not self.options):
            key = [
                adapt.sha256(adapted),
                precision,
                told,
                _tools("onnx", "onnxruntime"),
                _code("quantize"),
            ]
            graph, found = self.cache.get(
                precision, ".onnx", key, lambda out: quantize.quantize_file(adapted, out, precision, calibration)
            )
            print(f"quantize: {precision} {'was made before' if found else f'made as {graph}'}")
        if not self.options:
            return Built(precision, graph, told)
        options = self.options
        built_by = library(options.builder).__version__
        given = asdict(replace(options, timing_cache=None))
        key = [adapt.sha256(graph), precision, given, built_by, _code("tensorrt", "quantize")]
        plan, found = self.cache.get(
            precision,
            ".plan",
            [*key, engine.machine(options)],
            lambda out: engine.build(graph, precision, out, options),
        )
        record = read_record(plan)
        print(engine.summary(record.engine, plan) + (" (built before)" if found else ""))
        return Built(precision, plan, told)

    def _dataset(self, reference: Path) -> labels.Dataset | None:
        if self.arguments.data is None:
            print("verify: skipped, since there is nothing to verify with; name labelled images with --data")
            return None
        _, record = adapt.read_adapted_file(reference)
        return labels.read_dataset(self.arguments.data, record.spec.class_names, self.arguments.images)

    def _verify(self, built: Built, reference: Path, dataset: labels.Dataset, images: list[str]) -> dict[str, Any]:
        """The gate's report on one precision, served by the embedded server with the repository's other models.

        `images` are the hashes of the data set's.
        """
        gate = verify.gate_from(self.arguments, built.precision)
        served = self.target.served_as or self.arguments.target
        key = [
            adapt.sha256(built.model),
            adapt.sha256(reference),
            asdict(gate),
            served,
            asdict(self.group),
            images,
            dataset.truth,
            _code(),
            [adapt.sha256(path) for path in _files_of_the_others(self.arguments.repository)],
        ]

        def make(out: Path) -> None:
            with tempfile.TemporaryDirectory(prefix="triptych-verify-") as scratch:
                repository = publish.copy_of_the_others(self.arguments.repository, Path(scratch) / "models")
                activate(repository, int(publish.publish(built.model, served, repository, self.group).name))
                server = TritonServer(repository, ports=Ports.free(), log_path=out.with_suffix(".log"))
                try:
                    with server:
                        report = verify.verify(server.grpc_address, reference, dataset, gate, precision=built.precision)
                except ServerStartError as error:
                    raise BuildError(
                        f"{built.precision} cannot be served here, and so not verified: {error}; build it where it is "
                        "to run, or without --data"
                    ) from error
            with atomic_write(out.with_suffix(".md")) as aside:
                aside.write_text(report.to_markdown())
            with atomic_write(out) as aside:
                aside.write_text(json.dumps(report.to_dict(), indent=1) + "\n")

        path, found = self.cache.get(f"report-{built.precision}", ".json", key, make)
        report: dict[str, Any] = json.loads(path.read_text())
        outcome = "passed" if report["passed"] else "refused"
        print(
            f"verify: {built.precision} {outcome}{' before' if found else ''}; the report is {path.with_suffix('.md')}"
        )
        return report


def _told(calibration: Calibration) -> dict[str, Any]:
    """What the manifest says of a calibration."""
    return {
        "images": len(calibration.images),
        "sha256": calibration.sha256(),
        "method": calibration.method,
        "exclude": list(calibration.exclude),
        "scan": calibration.scan,
    }


def _files_of_the_others(repository: Path) -> list[Path]:
    """What the models beside the detector are made of."""
    names = [model.name for model in MODELS if model.name != "detector"]
    return sorted(
        path for name in names for path in (repository / name).rglob("*.p*") if path.suffix in (".py", ".pbtxt")
    )


def _tools(*names: str) -> dict[str, str]:
    return {name: version(name) for name in names}


def _code(*names: str) -> list[str]:
    """Hashes of the scripts that make something; without names, of all that a deployed detector runs through."""
    here = Path(__file__).parent
    package = Path(atomic_write.__code__.co_filename).parent
    found = [path for name in names for path in sorted((here / name).rglob("*.py"))]
    paths = found or [*sorted(here.rglob("*.py")), *sorted(package.rglob("*.py"))]
    return [adapt.sha256(path) for path in paths]


def _print_summary(made: list[Built]) -> None:
    """One row a precision, and a warning where int8 is not worth it."""
    table = Table("precision", "MB", "mAP50-95", "p50 ms", "p95 ms", "gate", "version")
    for column in table.columns[1:5]:
        column.justify = "right"
    for each in made:
        figures = ("", "", "")
        if each.report:
            latency = each.report["latency_ms"]
            figures = (f"{each.points:.2f}", f"{latency['p50']:.1f}", f"{latency['p95']:.1f}")
        outcome = "not verified" if each.report is None else "passed" if each.passed else "refused"
        name = each.version.name if each.version else ""
        table.add_row(each.precision, f"{each.model.stat().st_size / 1e6:.1f}", *figures, outcome, name)
    console = Console(highlight=False)
    console.print(table)
    verified = {each.precision: each for each in made if each.report}
    int8, fp16 = verified.get("int8"), verified.get("fp16")
    if int8 and fp16:
        if int8.p50_ms >= fp16.p50_ms:
            console.print(
                f"int8 is no faster than fp16 here ({int8.p50_ms:.1f} against {fp16.p50_ms:.1f} ms): serve fp16"
            )
        if int8.points < fp16.points - 0.5:
            console.print(
                f"int8 costs {fp16.points - int8.points:.2f} points of mAP50-95 against fp16: more calibration images, "
                "--scan or --exclude may win them back"
            )


def main() -> None:
    """Run the whole line."""
    parser = argparse.ArgumentParser(
        prog="python build",
        description=__doc__.split("\n", 1)[0],
        epilog="Each step also runs alone: python build/STEP.py --help, for adapt, quantize, engine, verify, publish.",
    )
    parser.add_argument("model", type=Path, help="the detector: an ONNX, or a .pt for your own Ultralytics to export")
    parser.add_argument(
        "--precision", nargs="+", choices=quantize.PRECISIONS, default=["fp32"], help="one version each (fp32)"
    )
    parser.add_argument(
        "--reference", type=Path, metavar="ONNX", help="the FP32 model that a quantized MODEL is measured against"
    )
    parser.add_argument("--force", action="store_true", help="publish what the gate refuses, too")
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE, metavar="DIR", help=f"({DEFAULT_CACHE})")
    for step in (adapt, quantize, engine, verify, publish):
        step.add_arguments(parser)
    arguments = parser.parse_args()
    arguments.precision = list(dict.fromkeys(arguments.precision))
    Line(arguments).run()


if __name__ == "__main__":
    run(main)
