"""`triptych sweep`: how much load the server bears, and what its settings change about that."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import grpc
import typer
from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner

from triptych._channel import check_address
from triptych._status import Target, explain_rpc_error
from triptych.client import DEFAULT_ADDRESS
from triptych.contract import DETECTOR, MAX_BATCH
from triptych.errors import ContractError, DeadlineExceeded, ImageError, TriptychError
from triptych.images import image_files
from triptych.model_control import CALL_TIMEOUT_S, ModelControl

if TYPE_CHECKING:
    from tritonclient.grpc import model_config_pb2

    from triptych.run_file import Run
    from triptych.sweep import Budget, Load, Point, Setting, Sweep

USERS = "1,2,4,8,16"
"""The loads of a sweep that names none."""

SERVED = "served"
"""In a list of settings: what the server has anyway."""

LOAD_TIMEOUT_S = 60.0
"""How long the server may take to change the detector's settings."""

POINT_TIMEOUT_S = 60.0
"""How much longer than warm-up and measurement together a load test may take."""

INTERRUPT_TIMEOUT_S = 15.0
"""How long a load test that is interrupted may take to switch the server's traces off."""

# Locust patches the standard library for gevent as it is imported: first, and in no process but its own.
_LOADTEST = "import locust; from triptych.console import run; from triptych.load.main import main; run(main)"

Number = TypeVar("Number", int, float)


def sweep(
    images: Annotated[Path, typer.Option(metavar="DIR", help="Images to send, in turn.")],
    address: Annotated[str, typer.Option(metavar="HOST:PORT", help="The server's gRPC address.")] = DEFAULT_ADDRESS,
    users: Annotated[
        str | None, typer.Option(metavar="N,N,…", help=f"Users that each wait for their answer. [default: {USERS}]")
    ] = None,
    rates: Annotated[
        str | None, typer.Option(metavar="N,N,…", help="Open loop instead: requests a second, whatever the answers do.")
    ] = None,
    instances: Annotated[
        str,
        typer.Option(metavar="N,N,…", help=f"The detector's instance counts to compare; `{SERVED}`: as it has them."),
    ] = SERVED,
    batching_delay_us: Annotated[
        str,
        typer.Option(
            metavar="N,N,…",
            help="Delays of the detector's dynamic batching to compare, in microseconds; 0: it batches what waits "
            f"anyway; `{SERVED}`: as it does it.",
        ),
    ] = SERVED,
    budget_ms: Annotated[float | None, typer.Option(min=0.001, metavar="MS", help="What an answer may take.")] = None,
    at: Annotated[str, typer.Option(metavar="p50|p95|p99", help="The percentile that the budget holds for.")] = "p95",
    duration: Annotated[float, typer.Option(min=0.5, metavar="S", help="Seconds that each load is measured.")] = 5,
    warmup: Annotated[float, typer.Option(min=0, metavar="S", help="Seconds of each load before anything counts.")] = 1,
    batch: Annotated[int, typer.Option(min=1, max=MAX_BATCH, metavar="N", help="Images in a request.")] = 1,
    out: Annotated[
        Path | None, typer.Option(dir_okay=False, metavar="SWEEP", help="A JSON file; its page goes beside it.")
    ] = None,
    keep_runs: Annotated[
        Path | None, typer.Option(file_okay=False, metavar="DIR", help="Keep the run file of each load test here.")
    ] = None,
) -> None:
    """Find the load that a server bears: the knee of its throughput, and the most within a latency budget.

    With --rates and --budget-ms, further rates between those given close in on the highest within the budget, to 5%.
    --instances and --batching-delay-us change the running server, which has its own settings back at the end.

    Exit codes: 0 it was measured, 1 it could not be, or no load keeps the budget.
    """
    try:
        # Imported here because the other commands run without the packages that only load tests need.
        from triptych import report as reports
        from triptych import sweep as sweeps
    except ModuleNotFoundError as error:
        raise _missing(str(error.name)) from error
    if find_spec("locust") is None:
        raise _missing("locust")
    if users is not None and rates is not None:
        raise ContractError("--users and --rates are two sweeps; choose one: users that wait, or requests at a rate")
    if at not in sweeps.PERCENTILES:
        raise ContractError(f"--at must be one of {', '.join(sweeps.PERCENTILES)}, but is {at!r}")
    check_address(address)
    page = reports.beside(out) if out else None
    if not image_files(images):
        raise ImageError(f"there are no images in {images}")
    if rates is not None:
        loads = [sweeps.Load(rate_per_s=rate) for rate in parse_numbers("--rates", rates, float, 0.1)]
    else:
        loads = [
            sweeps.Load(users=count) for count in parse_numbers("--users", USERS if users is None else users, int, 1)
        ]
    settings = [
        sweeps.Setting(count, delay_us)
        for count in parse_settings("--instances", instances, 1)
        for delay_us in parse_settings("--batching-delay-us", batching_delay_us, 0)
    ]
    budget = sweeps.Budget(budget_ms, at) if budget_ms else None
    # Stopped in any way, we leave the server with its own settings.
    on_sigterm = signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console(highlight=False, soft_wrap=True)
    with tempfile.TemporaryDirectory(prefix="triptych-sweep-") as temporary:
        loadtest = LoadTest(address, images, duration, warmup, batch, keep_runs or Path(temporary))
        try:
            measure_all(loadtest, settings, loads, budget, console)
        finally:
            signal.signal(signal.SIGTERM, on_sigterm)
            # What was measured before a server went away, or somebody lost patience, is worth keeping.
            if loadtest.runs:
                result = loadtest.result(budget, at)
                for sentence in result.sentences:
                    console.print(sentence, markup=False)
                if out and page:
                    sweeps.write(out, result)
                    reports.write(page, reports.html(reports.of_sweep(result, out.stem)))
                    console.print(f"written to {out} and {page}", markup=False)
    if budget and all(series.best_within_budget is None for series in result.series):
        raise typer.Exit(1)


def _missing(package: str) -> ContractError:
    return ContractError(f"a sweep needs the package {package}; install it with `pip install 'triptych[loadtest]'`")


def parse_numbers(option: str, text: str, kind: Callable[[str], Number], lowest: float) -> list[Number]:
    """The numbers of a comma-separated list, each once, the smallest first.

    Raises:
        ContractError: one is none, or below `lowest`.
    """
    try:
        numbers = sorted({kind(part) for part in text.split(",")})
    except ValueError:
        numbers = []
    if not numbers or not lowest <= numbers[0] <= numbers[-1] < float("inf"):
        what = "whole numbers" if kind is int else "numbers"
        raise ContractError(f"{option} must be {what} from {lowest:g} on, with commas between them, but is {text!r}")
    return numbers


def parse_settings(option: str, text: str, lowest: int) -> list[int | None]:
    """The numbers of a comma-separated list, which may hold `served`; that is None, and comes first.

    Raises:
        ContractError: as `parse_numbers`.
    """
    parts = [part.strip() for part in text.split(",")]
    numbers = [part for part in parts if part != SERVED]
    as_served: list[int | None] = [None] if len(numbers) < len(parts) else []
    return [*as_served, *(parse_numbers(option, ",".join(numbers), int, lowest) if numbers else [])]


# --- the load tests --------------------------------------------------------------------------------------------------


@dataclass
class LoadTest:
    """Load tests, each a process of its own, and what they found.

    Attributes:
        address: the server's.
        images: the directory of what is sent.
        duration_s, warmup_s, batch: of each.
        directory: where their run files go.
        original: the detector's configuration before the sweep, if the sweep changes it.
        runs: in the order in which they were measured.
        points: the same, by setting.
    """

    address: str
    images: Path
    duration_s: float
    warmup_s: float
    batch: int
    directory: Path
    original: model_config_pb2.ModelConfig | None = None
    runs: list[Run] = field(default_factory=list)
    points: dict[Setting, list[Point]] = field(default_factory=dict)

    def measure(self, load: Load, setting: Setting) -> Point:
        """Run one.

        Raises:
            TriptychError: it could not be measured; the sentence is the load test's own.
        """
        from triptych import run_file
        from triptych.sweep import Point

        out = self.directory / f"{re.sub(r'[^0-9a-z.]+', '-', f'{setting} {load}'.replace('µ', 'u'))}.json"
        out.unlink(missing_ok=True)
        options = ["--address", self.address, "--images", self.images, "--batch", self.batch, "--out", out]
        options += ["--warmup", self.warmup_s, "--duration", self.duration_s]
        options += ["--users", load.users] if load.rate_per_s is None else ["--rate", load.rate_per_s]
        said = _run([sys.executable, "-c", _LOADTEST, *map(str, options)], self.duration_s + self.warmup_s)
        if not out.exists():  # requests that fail set an exit code too, but have their run
            raise TriptychError(said[-1].removeprefix("error: ") if said else f"the load test of {load} left no run")
        run = run_file.read(out)
        point = Point.of(run, load, setting)
        self.runs.append(run)
        self.points.setdefault(setting, []).append(point)
        return point

    def result(self, budget: Budget | None, at: str) -> Sweep:
        """All of it; there is at least one run."""
        from triptych import sweep as sweeps

        series = [sweeps.Series.of(str(setting), points, budget) for setting, points in self.points.items()]
        first = self.runs[0]
        environment = first.environment
        if environment.detector and self.original is not None:
            count = sum(group.count for group in self.original.instance_group)
            environment = replace(environment, detector=replace(environment.detector, instances=count))
        return sweeps.Sweep(
            started=first.started,
            environment=environment,
            images=first.workload.images,
            budget_ms=budget.ms if budget else None,
            budget_at=at,
            series=series,
            sentences=sweeps.sentences(series, budget),
            command=["triptych", *sys.argv[1:]],
        )


def _run(command: Sequence[str], seconds: float) -> list[str]:
    """Run a load test of so many seconds to its end; the lines that it wrote on standard error.

    Raises:
        DeadlineExceeded: it did not end.
    """
    # In a session of its own: Ctrl-C is for us, who then give it the time to leave the server as it was.
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _, stderr = process.communicate(timeout=seconds + POINT_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        late = f"a load test of {seconds:g} s did not end within {seconds + POINT_TIMEOUT_S:g} s; is the server stuck?"
        raise DeadlineExceeded(late, grpc.StatusCode.DEADLINE_EXCEEDED) from error
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(INTERRUPT_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    return [line for line in stderr.splitlines() if line.strip()]


def measure_all(
    loadtest: LoadTest, settings: Sequence[Setting], loads: Sequence[Load], budget: Budget | None, console: Console
) -> None:
    """Measure every load with every setting, and show the points as they come.

    Raises:
        TriptychError: a setting could not be made, or a load could not be measured.
    """
    from triptych.sweep import Series, Setting, explore, table

    changes = any(setting != Setting() for setting in settings)
    with changed_settings(loadtest) if changes else nullcontext(lambda _setting: None) as change:
        for setting in settings:
            try:
                with Live(console=console, transient=True) as live:
                    live.update(Spinner("dots", f"the detector is loaded: {setting}"))
                    change(setting)
                    explore(loads, partial(_measure_and_show, loadtest, setting, budget, live), budget)
            finally:
                if points := loadtest.points.get(setting):
                    console.print(table(Series.of(str(setting), points, budget)))


def _measure_and_show(loadtest: LoadTest, setting: Setting, budget: Budget | None, live: Live, load: Load) -> Point:
    """Measure one load below the table of those that were."""
    from triptych.sweep import Series, table

    points = loadtest.points.get(setting)
    so_far = [table(Series.of(str(setting), points, budget))] if points else []
    live.update(Group(*so_far, Spinner("dots", f"{setting}: {load}")))
    return loadtest.measure(load, setting)


@contextmanager
def changed_settings(loadtest: LoadTest) -> Iterator[Callable[[Setting], None]]:
    """What changes the settings of the running detector; at the end it has its own again.

    Raises:
        ContractError: the server does not allow it, or did not take them back.
        RequestError: it does not answer, or cannot load the detector so.
    """
    control = ModelControl(loadtest.address)
    target = Target(loadtest.address, DETECTOR.name, CALL_TIMEOUT_S)
    try:
        try:
            original = loadtest.original = control.config(DETECTOR.name)
        except grpc.RpcError as error:
            raise explain_rpc_error(error, target).error from error
        now = original

        def change(setting: Setting) -> None:
            nonlocal now
            wanted = setting.applied(original)
            if wanted == now:
                return
            now = wanted  # whether it arrives or not: it is put back
            try:
                control.load(DETECTOR.name, LOAD_TIMEOUT_S, wanted)
            except grpc.RpcError as error:
                if "not allowed" in (error.details() or ""):
                    now = original
                    raise ContractError(
                        f"the server at {loadtest.address} does not let its models be changed; start it with "
                        "`triptych serve` or with --model-control-mode=explicit, or leave --instances and "
                        "--batching-delay-us away"
                    ) from error
                raise explain_rpc_error(error, replace(target, timeout_s=LOAD_TIMEOUT_S)).error from error

        try:
            yield change
        finally:
            if now != original:
                _put_back(control, original, loadtest.address)
    finally:
        control.close()


def _put_back(control: ModelControl, original: model_config_pb2.ModelConfig, address: str) -> None:
    try:
        control.load(DETECTOR.name, LOAD_TIMEOUT_S, original)
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.UNAVAILABLE:
            return  # it is gone, and what we changed with it
        raise ContractError(
            f"the detector of {address} does not take its own settings back ({error.details()}); restart the server"
        ) from error
