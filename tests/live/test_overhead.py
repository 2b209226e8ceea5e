"""`triptych overhead` against the real server, and delays that are planted in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.commands import triptych
from support.steady import Planted, measured_in_peace
from triptych.cli.console import REFUSED
from triptych.serving.server import TritonServer

pytestmark = pytest.mark.triton


def test_the_parts_are_the_difference(
    demo_server: TritonServer, demo_repository: Path, images: Path, tmp_path: Path
) -> None:
    page, markdown = tmp_path / "page.html", tmp_path / "page.md"
    done = triptych(
        *("overhead", "--address", demo_server.grpc_address, "--images", images, "--frames", 12, "--rounds", 4),
        *("--model-repository", demo_repository, "--threads", 2, "--out", page, "--markdown", markdown, "--json"),
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    rows = {row["owner"]: row["served_ms"] - row["loop_ms"] for row in result["rows"]}
    assert sum(rows.values()) == pytest.approx(result["served_ms"] - result["loop_ms"])
    assert sum(row["loop_ms"] for row in result["rows"]) == pytest.approx(result["loop_ms"])
    assert result["difference_ms"] == pytest.approx(result["served_ms"] - result["loop_ms"])
    assert result["source"] == "traces"
    assert (result["agreed"], result["frames"]) == (12, 12)
    assert {"decoding", "threads", "inference", "suppression", "copies", "queue", "transport", "client"} < rows.keys()
    assert min(rows[owner] for owner in ("copies", "queue", "transport", "client")) > 0
    assert "both found the same objects in 12 of 12 images" in done.stderr
    assert "own loop" in page.read_text()
    assert "| decoding |" in markdown.read_text()


def test_several_users_at_once(demo_server: TritonServer, demo_repository: Path, images: Path) -> None:
    done = triptych(
        *("overhead", "--address", demo_server.grpc_address, "--images", images, "--frames", 24, "--rounds", 4),
        *("--model-repository", demo_repository, "--threads", 1, "--users", 6),
    )
    assert done.returncode == 0, done.stderr
    assert "6 requests at once" in done.stdout
    assert "queue, +" in done.stdout
    assert "threads, " not in done.stdout, "both sides have one thread"


def test_another_repository_than_the_served_one(demo_server: TritonServer, images: Path, tmp_path: Path) -> None:
    done = triptych(
        *("overhead", "--address", demo_server.grpc_address, "--images", images, "--model-repository", tmp_path)
    )
    assert done.returncode == REFUSED
    assert "name the model repository that it serves with --model-repository" in done.stderr


@pytest.mark.timing
@pytest.mark.slow
def test_a_delay_in_the_service_is_the_part_of_its_owner(planted: Planted, images: Path) -> None:
    def parts() -> dict[str, float]:
        done = triptych(
            *("overhead", "--address", planted.server.grpc_address, "--images", images, "--frames", 80, "--rounds", 8),
            *("--model-repository", planted.repository, "--threads", 1, "--json"),
        )
        assert done.returncode == 0, done.stderr
        return {row["owner"]: row["served_ms"] - row["loop_ms"] for row in json.loads(done.stdout)["rows"]}

    def check() -> None:
        planted.be_late(0)
        without = parts()
        planted.be_late(20)
        late = parts()
        assert late["suppression"] - without["suppression"] == pytest.approx(20, abs=1.5)
        for owner in late.keys() - {"suppression", "inference"}:
            assert late[owner] - without[owner] == pytest.approx(0, abs=1.5), owner

    measured_in_peace(check)
