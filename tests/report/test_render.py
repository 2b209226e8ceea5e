"""Pages as HTML and as Markdown: whole, and without anything from elsewhere, whatever the words in them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from support.pages import PAGES, Reader
from triptych import report
from triptych.report.blocks import Page

CHROMIUM = shutil.which("chromium")


def holds_nothing_of_elsewhere(page: str) -> None:
    for tag, attributes in Reader(page).elements:
        assert tag not in ("script", "link", "img", "iframe", "object", "a", "base"), tag
        assert not {"src", "href", "srcset", "xlink:href", "action"} & set(attributes), attributes
        assert not [name for name in attributes if name.startswith("on")], attributes
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def tables_are_well_formed(markdown: str) -> None:
    """Assert that every row of a table has as many cells as its head; blocks of code are left out."""
    outside = re.sub(r"^(`{3,})\n.*?^\1$", "", markdown, flags=re.MULTILINE | re.DOTALL)
    tables = [block for block in outside.split("\n\n") if block.lstrip().startswith("|")]
    assert tables
    for table in tables:
        lines = table.strip().splitlines()
        counts = {len(re.findall(r"(?<!\\)\|", line)) for line in lines}
        assert len(counts) == 1, table
        assert re.fullmatch(r"\|( (---|---:) \|)+", lines[1]), table
        assert len(lines) > 2, table


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole_and_loads_nothing(every_page: dict[str, Page], name: str) -> None:
    page = report.html(every_page[name])
    holds_nothing_of_elsewhere(page)
    assert "<script" not in page
    assert "nan" not in Reader(page).text.split()


@pytest.mark.parametrize("name", PAGES)
def test_markdown_is_well_formed(every_page: dict[str, Page], name: str) -> None:
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


@pytest.mark.parametrize("name", [name for name in PAGES if name != "failed"])
def test_the_segments_of_every_bar_add_up(every_page: dict[str, Page], name: str) -> None:
    reader = Reader(report.html(every_page[name]))
    segments = reader.widths_of("length", "segment")
    assert segments
    pieces = [widths for widths in reader.widths_of("pieces", "piece") if widths]  # not every owner has parts
    for widths in (*segments, *pieces):
        assert sum(widths) == pytest.approx(100, abs=0.01)


def test_words_of_users_stay_words(every_page: dict[str, Page]) -> None:
    page = report.html(every_page["hostile"])
    assert "&lt;script&gt;alert" in page
    assert "x" * 400 + "…" in page
    assert Reader(page).text.count("<script>alert('|`*_')</script>") >= 8
    markdown = report.markdown(every_page["hostile"])
    assert r"&lt;script&gt;alert('\|\`\*\_')&lt;/script&gt; \# \[x\](http://evil.example) \|" in markdown
    assert "\n````\npython " in markdown  # a fence that the command's own cannot close


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
@pytest.mark.parametrize("name", ["run", "video", "comparisons", "sweeps"])
def test_a_phone_shows_the_whole_width(every_page: dict[str, Page], tmp_path: Path, name: str) -> None:
    """A script in the browser measures it; what has a scroll bar of its own may be wider."""
    page = report.html(every_page[name])
    page = re.sub(r"<meta http-equiv=[^>]*>", "", page)
    measure = "<script>document.title = 'wide ' + document.documentElement.scrollWidth</script></body>"
    (tmp_path / "inner.html").write_text(page.replace("</body>", measure))
    (tmp_path / "outer.html").write_text(
        '<iframe src="inner.html" style="width:390px;height:844px;border:0"></iframe><script>onload = () => '
        "document.body.append(document.querySelector('iframe').contentDocument.title)</script>"
    )
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--allow-file-access-from-files"]
    assert CHROMIUM
    profile, outer = f"--user-data-dir={tmp_path / 'profile'}", str(tmp_path / "outer.html")
    command = [CHROMIUM, *options, profile, "--dump-dom", outer]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "wide 390" in done.stdout
