"""What a profile says of itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from support.profiles import fp32, int8, layer, profile
from triptych.errors import ContractError
from triptych.measure import profile as profile_file


def test_a_file_holds_all_of_it(tmp_path: Path) -> None:
    profile_file.write(tmp_path / "a.json", int8())
    assert profile_file.read(tmp_path / "a.json") == int8()


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"version": 1}')
    with pytest.raises(ContractError, match="must be a profile, but has no `layers`"):
        profile_file.read(tmp_path / "a.json")


def test_the_sums_add_up() -> None:
    measured = int8()
    assert measured.owners_ms() == {"fp32": 7.5, "int8": 6.0, "reformats": 6.0}
    assert measured.kinds_ms()["QLinearConv"] == 5.0
    for sums in (measured.owners_ms(), measured.kinds_ms()):
        assert sum(sums.values()) == pytest.approx(measured.layers_ms)
        assert list(sums.values()) == sorted(sums.values(), reverse=True)


def test_the_sentences() -> None:
    assert int8().sentences() == [
        "a call of 1 image takes 19.50 ms without the profile and 19.50 ms with it, in which the layers add up to "
        "19.50 ms (means of 50 calls each)",
        "of the layers' time: fp32 38%, int8 31%, 2 reformats 31%",
        "1 of 3 layers with weights stayed in fp32, with 36% of the time: head/Conv 7.00 ms",
        "the slowest: head/Conv 7.00 ms, q1 4.00 ms, stem/Conv 3.00 ms and 4 more",
    ]


def test_nothing_is_left_wide_in_the_widest_precision() -> None:
    assert fp32().left_wide() == []
    assert not [sentence for sentence in fp32().sentences() if "weights" in sentence]


@pytest.mark.parametrize(
    ("precision", "words"),
    [("int8", "all 1 layers with weights calculate in int8"), ("fp32", "all 1 layers with weights stayed in fp32")],
)
def test_all_layers_or_none(precision: str, words: str) -> None:
    [sentence] = [one for one in profile(layer("a", 1, precision), precision="int8").sentences() if "weights" in one]
    assert sentence.startswith(words)


@pytest.mark.parametrize(("latency_ms", "words"), [(10.0, "95% above"), (30.0, "35% below"), (18.0, "")])
def test_layers_that_do_not_add_up_to_the_call_are_doubted(latency_ms: float, words: str) -> None:
    doubts = [one for one in replace(int8(), latency_ms=latency_ms).sentences() if "trust the shares" in one]
    assert len(doubts) == bool(words)
    assert all(words in doubt for doubt in doubts)


def test_no_layers() -> None:
    assert profile(latency_ms=1.0).share(0.0) == 0.0
