"""`triptych ready`: one question to a server, for health checks of containers."""

from __future__ import annotations

import typer

from triptych.cli.console import SERVER_DEAD
from triptych.cli.options import DEFAULT_ADDRESS, Access, Address, TimeoutS, grouped

TIMEOUT_S = 5.0


@grouped
def ready(access: Access, address: Address = DEFAULT_ADDRESS, timeout_s: TimeoutS = TIMEOUT_S) -> None:
    """Say whether a server is ready: all of its stages are, and an image went through them in time.

    It is meant for the health check of a container. A server that refuses images because its queues are full is ready
    as long as it answers others.

    Exit codes: 0 it is ready, 3 it is not: the one line that is printed says what is not.
    """
    from triptych.serving.readiness import ask_ready

    readiness = ask_ready(address, timeout_s, access.credentials())
    typer.echo(readiness.line)
    if not readiness.is_ready:
        raise typer.Exit(SERVER_DEAD)
