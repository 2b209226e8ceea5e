"""Values of the command line: what is read, and what is refused with its reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar

import pytest
import typer
from typer.testing import CliRunner

from triptych.cli.app import COMMANDS
from triptych.cli.options import Counts, Integers, Numbers, Size, Sizes, Triple, Words, grouped


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (Words.parse, "fp32,int8", ("fp32", "int8")),
        (Words.parse, " a , b ,a", ("a", "b")),
        (Integers.parse, "4,1,4", (1, 4)),
        (Counts.parse, "preprocess=12, detector=4", {"preprocess": 12, "detector": 4}),
        (Numbers.parse, "20,0.5", (0.5, 20)),
        (Size.parse, "640x480", (640, 480)),
        (Size.parse, "640", (640, 640)),
        (Sizes.parse, "1920x1080,640", ((1920, 1080), (640, 640))),
        (Triple.parse, "0.5", (0.5, 0.5, 0.5)),
        (Triple.parse, "1,2,3", (1, 2, 3)),
    ],
)
def test_what_is_read(parse: Callable[[str], object], text: str, value: object) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (Words.parse, ""),
        (Words.parse, "a,,b"),
        (Integers.parse, "0"),
        (Counts.parse, "a"),
        (Counts.parse, "a=0"),
        (Counts.parse, "a=1,a=2"),
        (Counts.parse, "=1"),
        (Counts.parse, "a=-1"),
        (Integers.parse, "1,two"),
        (Integers.parse, "1.5"),
        (Numbers.parse, "nan"),
        (Numbers.parse, "inf"),
        (Numbers.parse, "-1"),
        (Size.parse, "640x0"),
        (Size.parse, "1x2x3"),
        (Size.parse, "²"),
        (Sizes.parse, "640,"),
        (Triple.parse, "1,2"),
        (Triple.parse, "nan"),
    ],
)
def test_what_is_refused(parse: Callable[[str], object], text: str) -> None:
    with pytest.raises(typer.BadParameter, match=r"expected .* but got"):
        parse(text)


@dataclass(frozen=True)
class Group:
    PANEL: ClassVar[str] = "A panel"

    size: Annotated[Size | None, typer.Option(parser=Size.parse, help="A size.")] = None
    count: Annotated[int, typer.Option(help="A count.")] = 1


def test_a_group_is_spread_and_collected() -> None:
    calls: list[object] = []

    @grouped
    def command(name: Annotated[str, typer.Argument(help="A name.")], group: Group, *, loud: bool = False) -> None:
        """Say something."""
        calls.append((name, group, loud))

    app = typer.Typer()
    app.command()(command)
    done = CliRunner().invoke(app, ["x", "--size", "8x4", "--loud"], catch_exceptions=False)
    assert done.exit_code == 0
    assert calls == [("x", Group(Size((8, 4)), 1), True)]
    help_text = CliRunner().invoke(app, ["--help"]).output
    assert "A panel" in help_text
    assert "Say something." in help_text


OLD = (
    "repository",
    "duration",
    "warmup",
    "timeout",
    "ready-timeout",
    "queue-delay-us",
    "batching-delay-us",
    "workspace",
)


@pytest.mark.parametrize("name", [command.__name__ for commands in COMMANDS.values() for command in commands])
def test_every_option_has_a_help_and_durations_their_unit(name: str) -> None:
    from triptych.cli.app import app

    command = typer.main.get_command(app).get_command(None, name)  # type: ignore[attr-defined]
    for option in command.params:
        assert option.help or option.name == "help", f"{name} {option.name} has no help"
        for flag in option.opts:
            assert flag.removeprefix("--") not in OLD, f"{name} {flag} has a newer name"
