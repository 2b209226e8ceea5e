"""The report: all that was measured, in one page that loads nothing, whatever the words in it."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
from collections import Counter
from html.parser import HTMLParser

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from triptych import report
from triptych.cli.report import report as report_command
from triptych.contract import STAGES
from triptych.errors import ContractError
from triptych.measure import run_file
from triptych.measure.attribution import Attribution, Breakdown, Requests, from_requests
from triptych.measure.comparison import compare
from triptych.measure.histogram import Histogram
from triptych.measure.intervals import Answer, cut
from triptych.measure.run_file import ClientSide, Environment, Failure, ImageSet, Run, ServedDetector, Workload
from triptych.measure.sweep import Point, Series, Sweep
from triptych.measure.traces import PARTS
from triptych.report.blocks import Chart, Columns, Line, Page
from triptych.report.plot import HEIGHT, WIDTH, Axis, plot
from triptych.wire.statistics import Counters

HOSTILE = "<script>alert('|`*_')</script>\n# [x](http://evil.example) | <img src=http://evil.example>"

VOID = {"meta", "input", "path", "rect", "circle", "polyline"}

CHROMIUM = shutil.which("chromium")


class Reader(HTMLParser):
    """What is in a page, and whether every element that is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def widths_of(self, parent: str, child: str) -> list[list[float]]:
        """The widths in percent of the children of each parent, by their classes, in the order of the page."""
        found: list[list[float]] = []
        for _, attributes in self.elements:
            classes = attributes.get("class", "").split()
            if parent in classes:
                found.append([])
            elif child in classes and found and "width" in attributes["style"]:
                found[-1].append(float(re.search(r"width:([\d.]+)%", attributes["style"]).group(1)))
        return found


def holds_nothing_of_elsewhere(page: str) -> None:
    for tag, attributes in Reader(page).elements:
        assert tag not in ("script", "link", "img", "iframe", "object", "a", "base"), tag
        assert not {"src", "href", "srcset", "xlink:href", "action"} & set(attributes), attributes
        assert not [name for name in attributes if name.startswith("on")], attributes
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def tables_are_well_formed(markdown: str) -> None:
    """Every row of a table has as many cells as its head; blocks of code are left out."""
    outside = re.sub(r"^(`{3,})\n.*?^\1$", "", markdown, flags=re.MULTILINE | re.DOTALL)
    tables = [block for block in outside.split("\n\n") if block.lstrip().startswith("|")]
    assert tables
    for table in tables:
        lines = table.strip().splitlines()
        counts = {len(re.findall(r"(?<!\\)\|", line)) for line in lines}
        assert len(counts) == 1, table
        assert re.fullmatch(r"\|( (---|---:) \|)+", lines[1]), table
        assert len(lines) > 2, table


def make_run(
    factor: float = 1.0, source: str = "traces", client: dict[str, float] | None = None, count: int = 400
) -> Run:
    """A run whose detector takes most of the time, `factor` times as long."""
    rng = np.random.default_rng(7)
    stages = rng.gamma(2.0, [[[0.2], [5.0 * factor], [0.4]]] * np.ones((count, 1, len(PARTS))) / len(PARTS))
    own = {name: rng.gamma(2.0, scale, count) for name, scale in (client or {}).items()}
    network, overhead = rng.gamma(2.0, 0.5, count), np.full(count, 0.05)
    total = stages.sum(axis=(1, 2)) + network + overhead + sum(own.values(), np.zeros(count))
    ids = [str(number) for number in range(count)]
    requests = Requests(total, network, overhead, stages, own, ids)
    attribution = from_requests(requests)
    if source != "traces":
        percentiles = {} if source == "statistics" else attribution.percentiles_ms
        mean = dataclasses.replace(attribution.breakdowns["mean"], ensemble_overhead_ms=-0.5)
        attribution = Attribution(source, count, {"mean": mean}, percentiles)
    answers = {each: Answer(float(ms), number / 40) for number, (each, ms) in enumerate(zip(ids, total, strict=True))}
    manifest = {
        "precision": "int8",
        "adapted": {
            "source": "pcb.onnx",
            "head": "raw",
            "spec": {"width": 640, "height": 640, "class_names": ["spur"]},
        },
        "versions": {"openvino": "2026.4"},
        "verification": {
            "passed": True,
            "verdict": "passed: holds every limit",
            "checks": [{"name": "mAP50-95 drop (points)", "measured": 0.3264, "limit": 1.0, "passed": True}],
        },
    }
    batches = Counter({1: count // 4, 2: count - count // 4})
    loop = "video" if client else "closed"
    return Run(
        started="2026-01-02T03:04:05+00:00",
        workload=Workload(loop, 4, None, "constant", 2, [], 1, 1.0, 10.0, ImageSet.of([b"1"])),
        environment=Environment(
            "127.0.0.1:8001", "a CPU", 2, ["a GPU"], {"python": "3.11"}, ServedDetector(3, "python", 2, 16, manifest)
        ),
        client=ClientSide(Histogram(map(float, total)), {}, {}, 10.0, 1.5, 0.125),
        server={"detector": Counters(count, 0, count * 2, count, batches=batches)},
        attribution=attribution,
        intervals=cut(answers, [], requests, 0.0, 10.0, 5),
        command=["python", "loadtest", "--images", "my images"],
    )


def make_failed_run() -> Run:
    run = make_run()
    nothing = Breakdown(0.0, 0.0, 0.0, {stage.name: dict.fromkeys(PARTS, 0.0) for stage in STAGES})
    return dataclasses.replace(
        run,
        client=ClientSide(Histogram(), {}, {"ServerUnavailable": Failure(12, "nobody answers")}, 10.0, 0.0, 0.0),
        server={},
        attribution=Attribution("statistics", 0, {"mean": nothing}),
        intervals=cut({}, [1.0] * 12, Requests.join([], {}), 0.0, 10.0, 5),
    )


def hostile_run() -> Run:
    run = make_run()
    detector = run.environment.detector
    manifest = {
        **detector.manifest,
        "precision": HOSTILE,
        "verification": {"verdict": HOSTILE, "checks": [{"name": HOSTILE}]},
    }
    manifest["adapted"] = {"source": HOSTILE, "spec": {"class_names": [HOSTILE]}}
    return dataclasses.replace(
        run,
        environment=dataclasses.replace(
            run.environment, cpu=HOSTILE, gpus=[HOSTILE], detector=dataclasses.replace(detector, manifest=manifest)
        ),
        client=dataclasses.replace(
            run.client,
            by_request={HOSTILE: run.client.latencies},
            failures={HOSTILE: Failure(3, HOSTILE), "A": Failure(1, "x" * 2000)},
        ),
        attribution=dataclasses.replace(run.attribution, long_tails=[HOSTILE]),
        command=["python", HOSTILE, "```"],
    )


def make_sweep(series: int = 2) -> Sweep:
    def point(users: int, slow: float) -> Point:
        mean = 10 * slow + 5 * users
        owners = {"preprocess": 2.0, "detector": mean - 3.0, "network and client": 1.0}
        return Point(users, None, None, None, 1000 * users / mean, mean, mean, 2 * mean, 30 * mean, 0, 1.5, owners, 0.9)

    def failed(users: int) -> Point:
        return Point(users, None, None, None, 0.0, 0.0, 0.0, 0.0, 0.0, 9, 0.0, {}, 0.1)

    labels = ["1 instance", HOSTILE][:series]
    run = make_run()
    return Sweep(
        run.started,
        run.environment,
        run.workload.images,
        50.0,
        "p95",
        [Series(label, [*(point(n, k + 1) for n in (1, 2, 4)), failed(8)], 1, 0) for k, label in enumerate(labels)],
        ["the knee is at 2 users", "the load generator was busy"],
        ["triptych", "sweep"],
    )


def pages() -> dict[str, Page]:
    a, b = make_run(4.0), make_run()
    comparison = dataclasses.replace(compare(a, b, ("fp32", "int8")), regressions=["p95 is longer"])
    track = make_run(client={"read": 1.0, "encode": 2.0, "wait": 3.0, "track": 20.0, "write": 0.1, "other": 1.0})
    return {
        "run": report.of_run(a, "demo", 100.0),
        "statistics": report.of_run(make_run(source="statistics"), "means"),
        "summaries": report.of_run(make_run(source="summaries"), "summaries"),
        "video": report.of_run(track, "video"),
        "failed": report.of_run(make_failed_run(), "failed", 50.0),
        "one request": report.of_run(make_run(count=1), "one"),
        "hostile": report.of_run(hostile_run(), HOSTILE),
        "comparison": report.of_comparisons([comparison], [a, b], ["of one side"]),
        "comparisons": report.of_comparisons([comparison, compare(a, b, ("fp32", HOSTILE))], [a, b, b]),
        "sweep": report.of_sweep(make_sweep(1), "sweep"),
        "sweeps": report.of_sweep(make_sweep(), "sweeps"),
    }


@pytest.fixture(scope="module")
def every_page() -> dict[str, Page]:
    return pages()


NAMES = (
    "run",
    "statistics",
    "summaries",
    "video",
    "failed",
    "one request",
    "hostile",
    "comparison",
    "comparisons",
    "sweep",
    "sweeps",
)


@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_whole_and_loads_nothing(every_page, name):
    page = report.html(every_page[name])
    holds_nothing_of_elsewhere(page)
    assert "<script" not in page
    assert "nan" not in Reader(page).text.split()


@pytest.mark.parametrize("name", NAMES)
def test_markdown_is_well_formed(every_page, name):
    text = report.markdown(every_page[name])
    tables_are_well_formed(text)
    assert text.count("<details>") == text.count("</details>")
    outside = re.sub(r"^(`{3,})\n.*?^\1$", "", text, flags=re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"<[^>]*>", outside)) <= {
        "<sub>",
        "</sub>",
        "<details>",
        "</details>",
        "<summary>",
        "</summary>",
    }


@pytest.mark.parametrize("name", [name for name in NAMES if name != "failed"])
def test_the_segments_of_every_bar_add_up(every_page, name):
    reader = Reader(report.html(every_page[name]))
    segments = reader.widths_of("length", "segment")
    assert segments
    pieces = [widths for widths in reader.widths_of("pieces", "piece") if widths]  # not every owner has parts
    for widths in (*segments, *pieces):
        assert sum(widths) == pytest.approx(100, abs=0.01)


def test_bars_are_on_one_scale(every_page):
    page = every_page["comparison"]
    bars = next(block for section in page.sections for block in section.blocks if block.kind == "bars")
    first, second = bars.bars
    assert first.percent == 100
    assert second.percent == pytest.approx(100 * second.total_ms / first.total_ms)
    assert not bars.stretched


def test_the_figures_of_a_run_are_in_both(every_page):
    run = make_run(4.0)
    latencies, found = run.client.latencies, run.attribution
    assert latencies.percentile_ms(95) < 100
    figures = [
        f"{latencies.percentile_ms(99):.1f}",
        f"{latencies.mean_ms:.1f}",
        f"{found.breakdowns['p95'].stages['detector']['queue']:.2f}",
        f"{found.percentiles_ms['detector infer']['p99']:.2f}",
        "within the budget of 100 ms at p95",
        "detector owns",
        "a CPU",
        "a GPU",
        "pcb.onnx",
        "0.33",
        "python loadtest --images 'my images'",
        run.workload.images.sha256,
        "80.0",  # images a second: two a request
        "on 1.8 images on average",
    ]
    text, markdown = Reader(report.html(every_page["run"])).text, report.markdown(every_page["run"])
    for figure in figures:
        assert figure in text, figure
        assert figure in markdown, figure


def test_a_budget_that_is_broken_is_told():
    page = report.html(report.of_run(make_run(), "run", budget_ms=1))
    assert '<p class="note bad">over the budget of 1 ms at p95' in page


def test_a_busy_load_generator_is_told():
    run = make_run()
    busy = dataclasses.replace(run, client=dataclasses.replace(run.client, busiest=0.93))
    assert '<p class="note warning">the load generator used 93% of a core' in report.html(report.of_run(busy, "run"))
    assert "the load generator used" not in report.html(report.of_run(run, "run"))


def test_requests_without_a_trace_are_told():
    run = make_run()
    lost = dataclasses.replace(run, attribution=dataclasses.replace(run.attribution, requests=390))
    assert "10 of 400 requests left no whole trace" in report.markdown(report.of_run(lost, "run"))


def test_where_it_is_from_is_told(every_page):
    said = {name: report.markdown(every_page[name]) for name in ("run", "summaries", "statistics")}
    assert "From the server's own traces" in said["run"]
    assert "come from its metrics" in said["summaries"]
    assert "Means alone" in said["statistics"]
    assert "Below zero" in said["statistics"]
    assert "Below zero" not in said["run"]
    assert "## Percentiles, each for itself" not in said["statistics"]
    assert "## Percentiles, each for itself" in said["summaries"]


def test_the_stages_of_a_video_are_owners(every_page):
    text = Reader(report.html(every_page["video"])).text
    assert "track owns" in text
    for owner in ("read", "encode", "wait", "track", "write", "other"):
        assert f"{owner} " in text


def test_a_run_without_an_answer_says_so(every_page):
    text = Reader(report.html(every_page["failed"])).text
    assert "No request succeeded" in text
    assert "12 of 12 requests failed: 12 ServerUnavailable" in text
    assert "nobody answers" in text
    assert "Where the time goes" not in text


def test_words_of_users_stay_words(every_page):
    page = report.html(every_page["hostile"])
    assert "&lt;script&gt;alert" in page
    assert "x" * 400 + "…" in page
    assert Reader(page).text.count("<script>alert('|`*_')</script>") >= 8
    markdown = report.markdown(every_page["hostile"])
    assert r"&lt;script&gt;alert('\|\`\*\_')&lt;/script&gt; \# \[x\](http://evil.example) \|" in markdown
    assert "\n````\npython " in markdown  # a fence that the command's own cannot close


def test_amdahl_stands_beside_what_was_measured(every_page):
    found = compare(make_run(4.0), make_run(), ("fp32", "int8"))
    text = Reader(report.html(every_page["comparison"])).text
    for figure in (
        found.sentence,
        found.prediction,
        f"{found.amdahl:.2f}x",
        f"{found.latency['p95'].value:.2f}x",
        f"{found.latency['mean'].low:.2f} to {found.latency['mean'].high:.2f}",
        "of one side",
        "p95 is longer",
    ):
        assert figure in text, figure


def test_what_may_be_chance_has_a_question_mark():
    text = Reader(report.html(report.of_comparisons([compare(make_run(), make_run())], [make_run()] * 2))).text
    assert "1.00x ?" in text


def test_a_sweep_shows_its_knee_and_its_budget(every_page):
    reader = Reader(report.html(every_page["sweep"]))
    marks = [attributes["class"] for _, attributes in reader.elements if attributes.get("class") in ("mark", "ring")]
    assert marks == ["mark", "ring"] * 2  # in the chart, and in its legend
    for said in ("the knee is at 2 users", "budget, p95", "most within the budget", "9 failed", "load generator busy"):
        assert said in reader.text


def test_every_point_lies_within_its_chart(every_page):
    for page in every_page.values():
        for section in page.sections:
            for charts in (block for block in section.blocks if block.kind == "charts"):
                for drawn in map(plot, charts.charts):
                    for x, y in (point for dots in (*drawn.dots, *drawn.marks) for point in dots):
                        assert drawn.left <= x <= drawn.right <= WIDTH
                        assert drawn.top <= y <= drawn.bottom <= HEIGHT
                    for x, y, width, height in (column for columns in drawn.columns for column in columns):
                        assert drawn.left <= x <= x + width <= drawn.right + 1
                        assert y + height == pytest.approx(drawn.bottom, abs=0.02)


def test_the_columns_of_the_histogram_are_all_requests(every_page):
    charts = next(block for section in every_page["run"].sections for block in section.blocks if block.kind == "charts")
    ((series,), found) = charts.charts[0].columns, make_run(4.0).client.latencies
    assert sum(height for *_, height in series.columns) == found.count
    below = sum(height for _, right, height in series.columns if right <= found.percentile_ms(50))
    assert below / found.count == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    ("values", "log", "zero", "ticks", "is_log"),
    [
        ([], False, True, [0, 0.2, 0.4, 0.6, 0.8, 1], False),
        ([0.0], False, True, [0, 0.2, 0.4, 0.6, 0.8, 1], False),
        ([7.0], False, True, [0, 2, 4, 6, 8], False),
        ([40.0, 62.0], True, False, [40, 45, 50, 55, 60, 65], False),
        ([7.0, 7.0], False, False, None, False),
        ([3.0, 70.0], True, True, [2, 5, 10, 20, 50, 100], True),
        ([0.0, 70.0], True, True, [0, 20, 40, 60, 80], False),
        ([5.0, 50.0], True, True, [5, 10, 20, 50], True),
    ],
)
def test_axes_hold_their_values_between_round_numbers(values, log, zero, ticks, is_log):
    axis = Axis.over(values, log=log, zero=zero)
    assert axis.log == is_log
    assert ticks is None or axis.ticks == pytest.approx(ticks)
    assert all(axis.low <= value <= axis.high for value in values)
    assert [axis.at(axis.low), axis.at(axis.high)] == [0, 1]


def test_a_value_lies_where_its_axis_says():
    chart = Chart("", "x", "y", lines=[Line("", [(0, 0), (5, 50), (10, 100)])], columns=[Columns("", [(0, 10, 100)])])
    drawn = plot(chart)
    middle = ((drawn.left + drawn.right) / 2, (drawn.top + drawn.bottom) / 2)
    assert drawn.dots[0] == [(drawn.left, drawn.bottom), pytest.approx(middle), (drawn.right, drawn.top)]
    assert drawn.columns[0] == [(drawn.left, drawn.top, drawn.right - drawn.left - 1, drawn.bottom - drawn.top)]


@pytest.fixture
def command() -> typer.Typer:
    app = typer.Typer()
    app.command()(report_command)
    return app


def test_the_command_writes_both(command, tmp_path):
    run_file.write(tmp_path / "demo.json", make_run())
    arguments = [str(tmp_path / "demo.json"), "--markdown", str(tmp_path / "demo.md"), "--budget-ms", "1"]
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert f"written to {tmp_path / 'demo.html'} and {tmp_path / 'demo.md'}" in result.output
    for name in ("demo.html", "demo.md"):
        assert "over the budget of 1 ms" in (tmp_path / name).read_text()


def test_the_command_refuses_what_it_cannot_show(command, tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"version": 99}))
    for arguments, said in (
        ([str(tmp_path / "run.json")], "must be a run of version"),
        ([str(tmp_path / "run.json"), "--budget-ms", "0"], "--budget-ms must be above 0"),
    ):
        with pytest.raises(ContractError, match=said):
            CliRunner().invoke(command, arguments, catch_exceptions=False)


def test_a_report_that_was_not_written_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ContractError, match="cannot be written"):
        report.write(tmp_path / "file" / "report.html", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
@pytest.mark.parametrize("name", ["run", "video", "comparisons", "sweeps"])
def test_a_phone_shows_the_whole_width(every_page, tmp_path, name):
    """Nothing but what scrolls for itself is wider than a phone: a script in the browser measures it."""
    page = report.html(every_page[name])
    page = re.sub(r"<meta http-equiv=[^>]*>", "", page)
    measure = "<script>document.title = 'wide ' + document.documentElement.scrollWidth</script></body>"
    (tmp_path / "inner.html").write_text(page.replace("</body>", measure))
    (tmp_path / "outer.html").write_text(
        '<iframe src="inner.html" style="width:390px;height:844px;border:0"></iframe><script>onload = () => '
        "document.body.append(document.querySelector('iframe').contentDocument.title)</script>"
    )
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--allow-file-access-from-files"]
    command = [CHROMIUM, *options, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", tmp_path / "outer.html"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "wide 390" in done.stdout
