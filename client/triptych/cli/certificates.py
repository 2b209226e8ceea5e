"""`triptych certificates`: an authority, a server's and a client's certificate, for development."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from triptych.cli.options import Words


def certificates(
    directory: Annotated[Path, typer.Argument(metavar="DIR", file_okay=False, help="Where they go.")],
    hosts: Annotated[
        Words | None,
        typer.Option(
            "--host",
            parser=Words.parse,
            metavar="NAME,IP,…",
            help="What clients call the server, besides localhost and 127.0.0.1.",
        ),
    ] = None,
    days: Annotated[
        int, typer.Option("--days", min=1, metavar="N", help="How long the server's and the client's hold.")
    ] = 365,
) -> None:
    """Make certificates and keys for TLS: an authority of your own, and what it signs for a server and for clients.

    If DIR has such an authority, it is kept and the others are renewed, so that clients go on trusting the server.
    They are for development: the authority's key lies next to them. Whoever has ca.key can pass for your server.
    """
    from triptych.certificates import make

    made = make(directory, hosts or (), days)
    console = Console(highlight=False, soft_wrap=True)
    for path in made.written:
        console.print(f"written: {path}", markup=False)
    if made.renewed:
        console.print(f"kept: {directory / 'ca.pem'} and its key", markup=False)
    console.print(f"for {', '.join(made.hosts)}, until {made.until:%Y-%m-%d}", markup=False)
    serve = f"triptych serve --tls-certificate {directory}/server.pem --tls-key {directory}/server.key"
    console.print(f"\na server with TLS:        {serve}", markup=False)
    console.print(f"and only for its clients: … --client-ca {directory}/ca.pem", markup=False)
    console.print(f"a client:                 triptych detect IMAGE --ca {directory}/ca.pem", markup=False)
    shown = f"--certificate {directory}/client.pem --certificate-key {directory}/client.key"
    console.print(f"that shows its own:       … {shown}", markup=False)
