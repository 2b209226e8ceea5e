"""The options of `locust -f`, which Locust's own parser reads, and what they ask for."""

from __future__ import annotations

import functools
from argparse import Namespace
from pathlib import Path
from typing import Any

from triptych.wire.credentials import Credentials
from triptych_loadtest.load_test import LoadProfile
from triptych_loadtest.payloads import Payloads, parse_sizes, payloads, read_images
from triptych_loadtest.shapes import SHAPES

CONNECTION = {
    "ca": "TLS: the authority that signed the server's certificate",
    "certificate": "mutual TLS: your own certificate",
    "certificate_key": "its key",
    "server_name": "the name in the server's certificate, where the address has another one",
    "server_key": "the key of `triptych serve`, where it is on another machine or behind a tunnel",
}
"""How to connect, as in `Credentials`."""


def add_options(parser: Any) -> None:
    """Add our options to Locust's parser; they are fields of its web page too."""
    add = parser.add_argument
    add("--images", required=True, metavar="DIR", help="images to send, drawn at random")
    add("--batch", type=int, default=1, metavar="N", help="images in a request (1)")
    add("--sizes", default="", metavar="WxH,…", help="send each image scaled to each of these sizes, in turn")
    add("--rate", type=float, default=0, metavar="N", help="open loop: requests a second of each user")
    add("--poisson", action="store_true", help="with --rate: random gaps, exponentially distributed")
    add("--fps", type=float, default=0, metavar="N", help="users are cameras that send N frames a second each")
    of_what = "how the load changes: of users, or of the rate (constant)"
    add(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="of what is random: the order of the images, the phases of cameras, random gaps",
    )
    add("--shape", choices=list(SHAPES), default="constant", help=of_what)
    for name, what in CONNECTION.items():
        # Files of the machine that sends, which are nothing for a web page.
        environment = f"TRIPTYCH_{name.upper()}"
        option, metavar = f"--{name.replace('_', '-')}", "NAME" if name == "server_name" else "FILE"
        add(option, default="", metavar=metavar, env_var=environment, include_in_web_ui=False, help=what)


def profile_of(options: Namespace) -> LoadProfile:
    """Return the load that the options ask of each user."""
    # A worker gets every option of its master but Locust's own, and the run time is one of those.
    duration_s = getattr(options, "load_seconds", 0) or options.run_time or 0
    return LoadProfile(options.rate, options.poisson, options.fps, options.shape, float(duration_s), options.seed)


def credentials_of(options: Namespace) -> Credentials:
    """Return how the options have the users connect."""
    return Credentials(**{name: value for name in CONNECTION if (value := getattr(options, name))})


def payloads_of(options: Namespace) -> Payloads:
    """Return what the options have the users send."""
    return _read_payloads(options.images, options.batch, options.sizes)


@functools.lru_cache(maxsize=1)
def _read_payloads(images: str, batch: int, sizes: str) -> Payloads:
    """Read the images once for all users."""
    return payloads(read_images(Path(images)), batch, parse_sizes(sizes))
