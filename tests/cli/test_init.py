"""`triptych init`: what it writes, and what it leaves alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from support import ROOT
from triptych.cli.app import app
from triptych.serving import template
from triptych.serving.template import CHECKOUT, lay_out


def test_the_repository_is_that_of_the_checkout(tmp_path: Path) -> None:
    written = lay_out(tmp_path / "shop")
    assert written == sorted(tmp_path / "shop" / name for name in [*CHECKOUT, "README.md"])
    for name, source in CHECKOUT.items():
        assert (tmp_path / "shop" / name).read_text() == (ROOT / source).read_text()
    assert (tmp_path / "shop" / "model_repository" / "detection" / "1").is_dir()
    assert len((tmp_path / "shop" / "README.md").read_text().splitlines()) <= 10


def test_every_tracked_file_of_the_repository_is_laid_out() -> None:
    models = [path for path in (ROOT / "model_repository").rglob("*") if path.suffix in (".py", ".pbtxt")]
    published = ROOT / "model_repository" / "detector"
    expected = {str(path.relative_to(ROOT)) for path in models if published not in path.parents}
    assert expected <= set(CHECKOUT)


def test_what_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "locustfile.py").write_text("# mine\n")
    written = lay_out(tmp_path)
    assert tmp_path / "locustfile.py" not in written
    assert (tmp_path / "locustfile.py").read_text() == "# mine\n"
    assert lay_out(tmp_path) == []


def test_the_command(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["init", str(tmp_path / "shop")])
    assert done.exit_code == 0
    assert "model_repository/preprocess/1/model.py" in done.output
    assert "triptych build MODEL.onnx" in done.output
    again = CliRunner().invoke(app, ["init", str(tmp_path / "shop")])
    assert "nothing was written" in again.output


def test_a_file_in_the_way_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "shop").write_text("")
    done = CliRunner().invoke(app, ["init", str(tmp_path / "shop")])
    assert "is a file, and must be a directory" in str(done.exception)


def test_an_installed_wheel_has_its_own_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site-packages" / "triptych"
    for name, source in CHECKOUT.items():
        copy = package / "template" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((ROOT / source).read_bytes())
    monkeypatch.setattr(template, "__file__", str(package / "serving" / "template.py"))
    assert len(lay_out(tmp_path / "shop")) == len(CHECKOUT) + 1
