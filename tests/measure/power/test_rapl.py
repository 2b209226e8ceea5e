"""RAPL, on a tree of files like that of Linux: packages, what is within them, ends of counters, and rights."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from triptych.measure.power.rapl import Rapl

RANGE_UJ = 262_143_328_850


def domain(powercap: Path, name: str, energy_uj: int, what: str) -> Path:
    """Make a domain; return its counter."""
    (powercap / name).mkdir(parents=True)
    (powercap / name / "name").write_text(f"{what}\n")
    (powercap / name / "max_energy_range_uj").write_text(f"{RANGE_UJ}\n")
    (powercap / name / "energy_uj").write_text(f"{energy_uj}\n")
    return powercap / name / "energy_uj"


def test_packages_count_and_what_is_within_them_does_not(tmp_path: Path) -> None:
    one, two = domain(tmp_path, "intel-rapl:0", 5, "package-0"), domain(tmp_path, "intel-rapl:1", 7, "package-1")
    domain(tmp_path, "intel-rapl:0:0", 3, "core")
    domain(tmp_path, "intel-rapl:0:1", 3, "dram")
    domain(tmp_path, "intel-rapl:2", 3, "psys")
    domain(tmp_path, "intel-rapl-mmio:0", 3, "package-0")
    rapl = Rapl(tmp_path)
    assert [(key, one.kind, one.name, one.source) for key, one in rapl.identities.items()] == [
        ("intel-rapl:0", "CPU", "package-0", "rapl"),
        ("intel-rapl:1", "CPU", "package-1", "rapl"),
    ]
    assert "the load generator" in rapl.identities["intel-rapl:0"].note
    assert rapl.missing == ""
    one.write_text("2500005\n")
    two.write_text("1000007\n")
    assert {key: reading.energy_j for key, reading in rapl.read().items()} == {
        "intel-rapl:0": 2.5,
        "intel-rapl:1": 1.0,
    }


def test_a_counter_that_comes_to_its_end_goes_on(tmp_path: Path) -> None:
    counter = domain(tmp_path, "intel-rapl:0", RANGE_UJ - 1_000_000, "package-0")
    rapl = Rapl(tmp_path)
    counter.write_text("2000000")
    assert rapl.read()["intel-rapl:0"].energy_j == pytest.approx(3.0)
    counter.write_text(str(RANGE_UJ - 1))
    rapl.read()
    counter.write_text("0")
    assert rapl.read()["intel-rapl:0"].energy_j == pytest.approx(3.0 + (RANGE_UJ - 2_000_000) / 1e6)


def test_what_may_not_be_read_is_said_and_not_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counter = domain(tmp_path, "intel-rapl:0", 5, "package-0")
    counter.chmod(0)
    if os.geteuid() == 0:  # for whom rights do not count
        read_text = Path.read_text

        def refuse(path: Path) -> str:
            if path == counter:
                raise PermissionError(13, "Permission denied")
            return read_text(path)

        monkeypatch.setattr(Path, "read_text", refuse)
    rapl = Rapl(tmp_path)
    assert rapl.identities == {}
    assert rapl.read() == {}
    assert rapl.missing.startswith(f"the processor's energy may not be read: {counter} is for root alone")


def test_a_machine_without_such_counters_says_so(tmp_path: Path) -> None:
    rapl = Rapl(tmp_path / "powercap")
    assert rapl.identities == {}
    assert "shows no energy of its processor" in rapl.missing


def test_a_counter_that_vanishes_is_left_out(tmp_path: Path) -> None:
    counter = domain(tmp_path, "intel-rapl:0", 5, "package-0")
    rapl = Rapl(tmp_path)
    counter.unlink()
    assert rapl.read() == {}
