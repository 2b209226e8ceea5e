"""`python loadtest`: what clients wait for, and who takes that time, over exactly the same window.

    python loadtest --images DIR --users 4 --duration 10 --out RUN.json

Exit codes: 0 every request succeeded and every limit was kept, 1 otherwise or when the server could not be reached.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from rich.console import Console

from triptych import DetectionClient
from triptych import report as reports
from triptych.contract import MAX_BATCH
from triptych.errors import ContractError
from triptych.measure import attribution, intervals, run_file
from triptych.measure import remarks as findings
from triptych.measure.attribution import Headroom, Requests
from triptych.measure.environment import with_server
from triptych.measure.remarks import BUDGET_AT
from triptych.measure.run_file import ClientSide, ImageSet, Loop, Run, Workload
from triptych.measure.window import Window, summary_line
from triptych.report.terminal import attribution_table, window_table
from triptych_loadtest.payloads import payloads, read_images
from triptych_loadtest.runner import Measured, measure
from triptych_loadtest.users import add_options


def parse_arguments() -> Namespace:
    """The command line.

    Raises:
        ContractError: its options do not go together.
    """
    parser = ArgumentParser(prog="python loadtest", description=(__doc__ or "").split("\n", 1)[0])
    add = parser.add_argument
    add("--address", default="127.0.0.1:8001", help="the server's gRPC address (127.0.0.1:8001)")
    add_options(parser)
    add("--users", type=int, default=4, help="users that each wait for their answer, or cameras (4)")
    add("--rate", type=float, default=0, metavar="N", help="open loop: requests a second, whatever the answers do")
    add("--processes", type=int, default=1, help="processes that share the load; more where one is too slow (1)")
    add("--warmup", type=float, default=2, metavar="S", help="seconds before anything counts (2)")
    add("--duration", type=float, default=10, metavar="S", help="seconds that are measured (10)")
    add("--intervals", type=int, default=10, metavar="N", help="parts of that time, as samples for a comparison (10)")
    add("--out", type=Path, metavar="RUN", help="write the run to this JSON file, and a page beside it")
    add("--model-repository", type=Path, metavar="DIR", help="what the server serves, for the detector's manifest")
    add("--no-traces", action="store_true", help="do not switch the server's traces on, whose percentiles add up")
    add("--budget-ms", type=float, metavar="MS", help=f"what an answer may take, held against p{BUDGET_AT}")
    add("--max-p95-ms", type=float, metavar="MS", help="exit 1 if the p95 is above")
    add("--max-p99-ms", type=float, metavar="MS", help="exit 1 if the p99 is above")
    add("--max-failures", type=int, default=0, metavar="N", help="exit 1 if more requests failed (0)")
    add("--min-rate", type=float, metavar="N", help="exit 1 if fewer requests a second were answered")
    arguments = parser.parse_args()
    if arguments.poisson and not arguments.rate:
        raise ContractError("--poisson needs --rate N: how many requests a second come at random")
    if arguments.rate and arguments.fps:
        raise ContractError("--rate and --fps are two loops; choose one: requests at a rate, or cameras that wait")
    if min(arguments.users, arguments.processes, arguments.intervals) < 1 or min(arguments.rate, arguments.fps) < 0:
        raise ContractError("--users, --processes and --intervals must be at least 1, --rate and --fps at least 0")
    if not 1 <= arguments.batch <= MAX_BATCH:
        raise ContractError(f"--batch must be 1 to {MAX_BATCH}, what the server takes, but is {arguments.batch}")
    if arguments.duration <= 0 or arguments.warmup < 0:
        raise ContractError("--duration must be above 0 seconds, and --warmup at least 0")
    return arguments


def main() -> None:
    """Run the load and print what it showed."""
    arguments = parse_arguments()
    images = read_images(Path(arguments.images))
    page = reports.beside(arguments.out) if arguments.out else None
    console = Console()
    machine = run_file.describe_machine(arguments.address)
    measured = measure(arguments, payloads(images, arguments.batch, arguments.sizes), console)
    result = describe(arguments, images, machine, measured)
    report(result, measured.window, arguments.budget_ms, console)
    if page:
        run_file.write(arguments.out, result)
        reports.write(page, reports.html(reports.of_run(result, arguments.out.stem, arguments.budget_ms)))
        console.print(f"written to {arguments.out} and {page}", soft_wrap=True, highlight=False)
    broken = broken_limits(arguments, result, measured.window)
    for sentence in broken:
        console.print(f"[red]limit broken:[/red] {sentence}", soft_wrap=True, highlight=False)
    if broken:
        sys.exit(1)


def describe(arguments: Namespace, images: list[bytes], machine: run_file.Environment, measured: Measured) -> Run:
    """The run, with where its time went."""
    window, recorder = measured.window, measured.recorder
    open_loop: Loop = "poisson" if arguments.poisson else "constant"
    requests = Requests.join(
        measured.traced, {request_id: answer.latency_ms for request_id, answer in recorder.answers.items()}
    )
    with DetectionClient(arguments.address) as client:
        environment = with_server(machine, client, arguments.model_repository)
    return Run(
        started=measured.started,
        workload=Workload(
            loop=open_loop if arguments.rate else "camera" if arguments.fps else "closed",
            users=0 if arguments.rate else arguments.users,
            rate_per_s=arguments.rate or arguments.fps or None,
            shape=arguments.shape,
            batch=arguments.batch,
            sizes=arguments.sizes,
            processes=arguments.processes,
            warmup_s=arguments.warmup,
            duration_s=arguments.duration,
            images=ImageSet.of(images),
        ),
        environment=environment,
        client=ClientSide(
            latencies=recorder.all_latencies,
            by_request=dict(recorder.latencies) if len(recorder.latencies) > 1 else {},
            failures=recorder.failures,
            seconds=window.duration_s,
            cpu_s=sum(recorder.cpu_s.values()),
            busiest=max(recorder.cpu_s.values(), default=0.0) / window.duration_s if window.duration_s else 0.0,
        ),
        server=dict(window.counters),
        attribution=attribution.from_requests(requests) if len(requests) else attribution.from_statistics(window),
        intervals=intervals.cut(
            recorder.answers,
            recorder.failed_at_s,
            requests,
            measured.began_s,
            arguments.duration,
            arguments.intervals,
        ),
        command=["python", *sys.argv],
    )


def report(result: Run, window: Window, budget_ms: float | None, console: Console) -> None:
    """Print what the run showed."""
    found = result.attribution
    console.print(summary_line(window), soft_wrap=True, highlight=False)
    if result.workload.batch > 1:
        images_per_s = result.client.rate_per_s * result.workload.batch
        console.print(f"  {result.workload.batch} images a request: {images_per_s:.1f} images/s", highlight=False)
    for name, latencies in sorted(result.client.by_request.items()):
        p50, p95 = latencies.percentile_ms(50), latencies.percentile_ms(95)
        console.print(f"  {name}: {latencies.count} requests, p50 {p50:.1f} ms, p95 {p95:.1f} ms", highlight=False)
    if found.source == "traces":
        console.print(attribution_table(found))
    else:
        console.print("Means only, from the server's statistics: no traces can be read here.")
        console.print(window_table(window))
    sentences = [attribution.owner_sentence(breakdown, at) for at, breakdown in found.breakdowns.items()]
    if budget_ms and window.latencies_ms:
        sentences.append(Headroom(budget_ms, window.percentile_ms(BUDGET_AT)).sentence(f"p{BUDGET_AT}"))
    for sentence in sentences:
        console.print(sentence, soft_wrap=True, highlight=False)
    if sentence := findings.batches(result):
        console.print(sentence, soft_wrap=True, highlight=False)
    for sentence in (*found.long_tails, *findings.generator(result)):
        console.print(f"[yellow]{sentence}[/yellow]", soft_wrap=True, highlight=False)
    if found.source == "traces" and found.requests < len(window.latencies_ms):
        console.print(f"{len(window.latencies_ms) - found.requests} requests left no whole trace", style="yellow")
    for kind, failure in result.client.failures.items():
        console.print(f"[red]{failure.count} failed:[/red] {kind}: {failure.example}", soft_wrap=True)


def broken_limits(arguments: Namespace, result: Run, window: Window) -> list[str]:
    """A sentence for each limit that the run broke."""
    p95, p99 = window.percentile_ms(95), window.percentile_ms(99)
    rate, failed = result.client.rate_per_s, result.client.failed
    broken = [
        f"{name} is {value:.1f} ms; {limit:g} are allowed"
        for name, value, limit in (
            ("p95", p95, arguments.max_p95_ms),
            ("p99", p99, arguments.max_p99_ms),
            (f"p{BUDGET_AT}, against the budget,", window.percentile_ms(BUDGET_AT), arguments.budget_ms),
        )
        if limit is not None and value > limit
    ]
    if failed > arguments.max_failures:
        broken.append(f"{failed} requests failed; {arguments.max_failures} are allowed")
    if arguments.min_rate is not None and rate < arguments.min_rate:
        broken.append(f"{rate:.1f} requests/s were answered; {arguments.min_rate:g} are wanted")
    if not window.latencies_ms:
        broken.append("no request succeeded")
    return broken
