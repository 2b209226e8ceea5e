"""Print a row for each run file: images a second, who has the latency, what the GPU did. Or draw their rates.

    python benchmarks/rates.py docs/results/2026-11-28-h200/*.json
    python benchmarks/rates.py "on the CPU=cpu-64.json" "on the GPU=gpu-64.json" --svg rates.svg

A run goes by its file's name, unless a label stands before it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt

from triptych.contract import DETECTOR, POSTPROCESS, PREPROCESS
from triptych.measure.power.figures import mean_power_w
from triptych.measure.run_file import Run, read

HEAD = (
    "| run | users | images in a request | images/s | p50, ms | p99, ms | at most | mean in preprocess, detector, "
    "postprocess, ms | images in a batch of the detector | load generator, cores | GPU busy | W | images/J |"
)


def row(label: str, run: Run) -> str:
    """Return a row of the table; what was not measured is a dash."""
    latencies, work = run.client.latencies, run.workload
    stages = run.attribution.breakdowns["mean"].stages
    means = [sum(stages[stage.name].values()) for stage in (PREPROCESS, DETECTOR, POSTPROCESS)]
    bound = run.client.bounds_ms.get("p99")
    gpus = run.power.of("GPU") if run.power else []
    busy = [device.mean("utilization") for device in gpus]
    watts = [mean_power_w(run.power, device) for device in gpus if run.power]
    cells = [
        label,
        f"{work.users}" if work.loop == "closed" else f"{work.rate_per_s:g}/s {work.loop}",
        f"{work.batch}",
        f"{rate(run):,.0f}",
        f"{latencies.percentile_ms(50):.1f}",
        f"{latencies.percentile_ms(99):.1f}",
        f"{bound:.1f}" if bound else "-",
        ", ".join(f"{mean:.1f}" for mean in means),
        f"{run.server[DETECTOR.name].mean_batch:.1f}",
        f"{run.client.cpu_s / run.client.seconds:.1f}",
        ", ".join("-" if value is None else f"{value:.0%}" for value in busy) or "-",
        ", ".join("-" if value is None else f"{value:.0f}" for value in watts) or "-",
        f"{run.images_per_j['GPU']:.2f}" if "GPU" in run.images_per_j else "-",
    ]
    return f"| {' | '.join(cells)} |"


def rate(run: Run) -> float:
    """Return images answered a second."""
    return run.images / run.client.seconds


def draw(runs: dict[str, Run], path: Path) -> None:
    """Draw a bar for each run, in their order from the top."""
    figure, axes = plt.subplots(figsize=(8, 0.42 * len(runs) + 0.8), layout="constrained")
    bars = axes.barh(list(runs), [rate(run) for run in runs.values()], color="#3b6ea5")
    axes.bar_label(bars, fmt="{:,.0f}", padding=4)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("images/s")
    axes.spines[["top", "right"]].set_visible(False)
    plt.rcParams["svg.hashsalt"] = "triptych"
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Read the runs, and print or draw them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("runs", nargs="+", metavar="[LABEL=]RUN", help="run files of `triptych loadtest`")
    parser.add_argument("--svg", type=Path, help="draw the rates into this file instead")
    arguments = parser.parse_args()
    labelled = [text.rpartition("=") for text in arguments.runs]
    runs = {label or Path(name).stem: read(Path(name)) for label, _, name in labelled}
    if arguments.svg:
        draw(runs, arguments.svg)
        return
    print(f"{HEAD}\n|{' --- |' * (HEAD.count('|') - 1)}")
    for label, run in runs.items():
        print(row(label, run))


if __name__ == "__main__":
    main()
