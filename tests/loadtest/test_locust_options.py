"""The options of `locust -f`, and the load they ask for."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import configargparse  # type: ignore[import-untyped]
import cv2
import numpy as np
import pytest

from triptych.errors import ContractError, ImageError
from triptych.wire.credentials import LOCAL, Credentials
from triptych_loadtest.load_test import LoadProfile
from triptych_loadtest.locust_options import add_options, credentials_of, payloads_of, profile_of


class Parser(configargparse.ArgumentParser):  # type: ignore[misc]  # it is not typed
    """Locust's parser, which takes the options of a page, without importing Locust, which patches the process."""

    def add_argument(self, *names: str, include_in_web_ui: bool = True, **options: Any) -> Any:
        return super().add_argument(*names, **options)


def parsed(*arguments: str) -> argparse.Namespace:
    """Return the options as Locust would; `--run-time` is one of its own."""
    parser = Parser()
    parser.add_argument("--run-time", type=lambda text: int(text.removesuffix("s")))
    add_options(parser)
    options: argparse.Namespace = parser.parse_args(arguments)
    return options


def test_without_options_users_wait_for_their_answers() -> None:
    assert profile_of(parsed("--images", "DIR")) == LoadProfile()


def test_how_users_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    assert credentials_of(parsed("--images", "DIR")) == LOCAL
    monkeypatch.setenv("TRIPTYCH_CA", "ca.pem")
    assert credentials_of(parsed("--images", "DIR")) == Credentials("ca.pem")
    given = Credentials("a.pem", "b.pem", "b.key", "triton", "key")
    assert credentials_of(parsed("--images", "DIR", *given.options())) == given


def test_a_worker_has_the_run_time_from_its_master() -> None:
    options = parsed("--images", "DIR", "--rate", "3", "--shape", "ramp")
    options.load_seconds = 8
    assert profile_of(options) == LoadProfile(rate_per_s=3, shape="ramp", duration_s=8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--rate", "2", "--fps", "3"), "one of them 0"),
        (("--rate", "-1"), "must be at least 0"),
        (("--poisson",), "poisson needs a rate"),
        (("--shape", "ramp"), "the shape ramp needs a run time"),
    ],
)
def test_a_load_that_cannot_be(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        profile_of(parsed("--images", "DIR", *arguments))


def test_payloads_that_cannot_be(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "image.png"), np.zeros((4, 4, 3), np.uint8))
    images = ("--images", str(tmp_path))
    with pytest.raises(ContractError, match="a batch must be of 1 to 16 images"):
        payloads_of(parsed(*images, "--batch", "17"))
    with pytest.raises(ContractError, match="a size must be WIDTHxHEIGHT"):
        payloads_of(parsed(*images, "--sizes", "large"))
    with pytest.raises(ImageError, match="there is no directory"):
        payloads_of(parsed("--images", str(tmp_path / "missing")))


def test_payloads_in_sizes_and_batches(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "image.png"), np.zeros((4, 4, 3), np.uint8))
    made = payloads_of(parsed("--images", str(tmp_path), "--batch", "2", "--sizes", "8x6, 4x2"))
    assert (list(made.kinds), made.batch) == (["detect 8x6 x2", "detect 4x2 x2"], 2)
