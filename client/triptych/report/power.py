"""What GPUs and processors took, as a section of a report and as rows for the terminal."""

from __future__ import annotations

from triptych.measure.power.figures import SOURCES, Device, Power, joules, mean_power_w, power_sentences
from triptych.measure.run_file import Run
from triptych.report.blocks import Block, Chart, Charts, Line, Note, Row, Section, Table

COLUMNS = ["device", "busy", "MB", "SM MHz", "memory MHz", "°C", "W", "J", "±", "throttled"]

_NOTE = (
    "Joules from when the first request was due to the last answer, by each device's own counter, whoever caused them; "
    "± is by how much they may be wrong. The rest are means of samples every {period_s:.2g} s; of memory the interval "
    "with the most, of clocks those with the lowest and the highest. A dash is what nobody says."
)

_OVER_TIME = (
    ("Power over time", "W", "power_w"),
    ("Clock of the multiprocessors over time", "MHz", "sm_clock_mhz"),
)


def power_sections(run: Run) -> list[Section]:
    """Return power, energy, clocks and what held them down; nothing of runs that do not know any."""
    power = run.power
    if power is None:
        return []
    if not power.devices:
        return [Section("Power", [Note(f"Not measured: {'; '.join(power.missing)}.", "small")], folded=True)]
    blocks: list[Block] = [
        *(Note(sentence) for sentence in power_sentences(power, run.images)),
        Table(COLUMNS, [Row(cells) for cells in power_rows(power)]),  # type: ignore[arg-type]
        *(Note(remark, "small") for remark in _small(power)),
        *_charts(run, power),
    ]
    return [Section("Power", blocks)]


def power_rows(power: Power) -> list[list[str]]:
    """Return the cells of each device, under `COLUMNS`."""
    return [_cells(power, device) for device in power.devices]


def _cells(power: Power, device: Device) -> list[str]:
    limit_w, throttling = device.identity.limit_w, device.throttling
    memory_mb = device.values("memory_mb")
    watts = _figure(mean_power_w(power, device))
    return [
        title(device),
        _figure(device.mean("utilization"), ".0%"),
        _figure(max(memory_mb, default=None)),
        _from_to(device.values("sm_clock_mhz")),
        _from_to(device.values("memory_clock_mhz")),
        _figure(device.mean("temperature_c")),
        f"{watts} of {limit_w:.0f}" if limit_w else watts,
        *("–" if value is None else joules(value) for value in (device.energy_j, device.uncertainty_j)),
        f"{len(throttling.intervals)} of {throttling.known} intervals" if throttling.known else "–",
    ]


def title(device: Device) -> str:
    """Say which device it is, and by whom its figures are."""
    identity = device.identity
    which = identity.id[:12] if identity.kind == "GPU" else identity.id
    return f"{identity.name} ({which}), by {SOURCES[identity.source]}"


def _small(power: Power) -> list[str]:
    """Say what the table rests on, and what is not in it."""
    unknown = [f"{title(device)}: no energy, since {device.unknown}." for device in power.devices if device.unknown]
    notes = [f"{title(one)}: {one.identity.note}." for one in power.devices if one.identity.note]
    return [
        _NOTE.format(period_s=power.period_s),
        *unknown,
        *notes,
        *(f"Not measured: {one}." for one in power.missing),
    ]


def _charts(run: Run, power: Power) -> list[Block]:
    """Show what the GPUs' gauges did over time, where there are several intervals."""
    middles = [interval.start_s + interval.seconds / 2 for interval in run.intervals]
    charts = []
    for name, label, gauge in _OVER_TIME:
        lines = []
        for device in power.devices:
            values = [getattr(one, gauge) for one in device.intervals]
            points = [(at_s, value) for at_s, value in zip(middles, values, strict=False) if value is not None]
            if len(points) > 1:
                lines.append(Line(title(device), points))
        if lines:
            charts.append(Chart(name, "s since the beginning", label, lines=lines, log_y=False))
    return [Charts(charts)] if charts else []


def _figure(value: float | None, form: str = ".0f") -> str:
    return "–" if value is None else f"{value:{form}}"


def _from_to(values: list[float]) -> str:
    low, high = (f"{end(values):.0f}" if values else "–" for end in (min, max))
    return low if low == high else f"{low} to {high}"
