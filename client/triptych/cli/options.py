"""The options that commands share: one option, one name, one meaning, one syntax.

Durations carry their unit in the name (`--timeout-s`, `--budget-ms`, `--max-queue-delay-us`), lists are separated by
commas, sizes are WIDTHxHEIGHT, `--out` names the file that a command writes its result to, and `--json` prints the
result on standard output as JSON. A value that cannot be read ends a command with exit code 2.

A command that takes many options takes them in groups: dataclasses whose fields are options. `grouped` spreads the
fields into the command's signature, where typer finds them, and hands the command its groups.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_type_hints  # noqa: TID251  (of classes alone)

import typer

from triptych.client import DEFAULT_ADDRESS, DEFAULT_TIMEOUT_S
from triptych.errors import ContractError
from triptych.serving.repository import DEFAULT_REPOSITORY
from triptych.wire.credentials import Credentials

Command = TypeVar("Command", bound=Callable[..., None])


class Words(tuple[str, ...]):
    """Words separated by commas, each once, in the order given."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Words:
        """Read `fp32,int8`.

        Raises:
            typer.BadParameter: there is no word, or an empty one.
        """
        words = [word.strip() for word in text.split(",")]
        if not all(words):
            raise typer.BadParameter(f"expected words with commas between them, such as a,b, but got {text!r}")
        return cls(dict.fromkeys(words))


class Counts(dict[str, int]):
    """A whole number above 0 for each of some names."""

    @classmethod
    def parse(cls, text: str) -> Counts:
        """Read `preprocess=12,detector=4`.

        Raises:
            typer.BadParameter: there is no name, or no such number.
        """
        pairs = [part.partition("=") for part in Words.parse(text)]
        counts = cls({name: int(count) for name, _, count in pairs if name and count.isascii() and count.isdigit()})
        if len(counts) < len(pairs) or not all(counts.values()):
            raise typer.BadParameter(
                f"expected each name once with a whole number above 0, such as a=4,b=1, but got {text!r}"
            )
        return counts


class Integers(tuple[int, ...]):
    """Whole numbers above 0, separated by commas, each once, the smallest first."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Integers:
        """Read `1,2,4`.

        Raises:
            typer.BadParameter: one is no whole number above 0.
        """
        return cls(int(number) for number in _numbers(text, int, "whole numbers above 0"))


class Numbers(tuple[float, ...]):
    """Numbers above 0, separated by commas, each once, the smallest first."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Numbers:
        """Read `0.5,10,20`.

        Raises:
            typer.BadParameter: one is no number above 0.
        """
        return cls(_numbers(text, float, "numbers above 0"))


def _numbers(text: str, kind: Callable[[str], float], what: str) -> list[float]:
    try:
        numbers = sorted({kind(part) for part in text.split(",")})
    except ValueError:
        numbers = []
    if not numbers or not all(0 < number < math.inf for number in numbers):
        raise typer.BadParameter(f"expected {what} with commas between them, but got {text!r}")
    return numbers


class Size(tuple[int, int]):
    """Width and height in pixels."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Size:
        """Read `640x480`, or `640` for a square.

        Raises:
            typer.BadParameter: it is neither.
        """
        sides = text.lower().split("x")
        if len(sides) > 2 or not all(side.isdecimal() and int(side) for side in sides):
            raise typer.BadParameter(f"expected WIDTHxHEIGHT such as 640x480, or 640 for a square, but got {text!r}")
        return cls((int(sides[0]), int(sides[-1])))


class Sizes(tuple[Size, ...]):
    """Sizes separated by commas, in the order given."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Sizes:
        """Read `1920x1080,640x480`.

        Raises:
            typer.BadParameter: one is no size.
        """
        return cls(Size.parse(part) for part in text.split(","))


class Triple(tuple[float, float, float]):
    """A number for each of three channels."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Triple:
        """Read `0.485,0.456,0.406`; one number stands for all three.

        Raises:
            typer.BadParameter: it is neither three numbers nor one.
        """
        try:
            numbers = [float(part) for part in text.split(",")]
        except ValueError:
            numbers = []
        if len(numbers) == 1:
            numbers *= 3
        if len(numbers) != 3 or not all(map(math.isfinite, numbers)):
            raise typer.BadParameter(f"expected three numbers such as 0.485,0.456,0.406, or one, but got {text!r}")
        return cls((numbers[0], numbers[1], numbers[2]))


Address = Annotated[str, typer.Option("--address", metavar="HOST:PORT", help="The server's gRPC address.")]
ModelRepository = Annotated[
    Path,
    typer.Option(
        "--model-repository",
        file_okay=False,
        metavar="DIR",
        help="The directory with the models detection, preprocess, detector and postprocess.",
    ),
]
TimeoutS = Annotated[
    float, typer.Option("--timeout-s", min=0.001, metavar="SECONDS", help="How long to wait for each answer.")
]
ScoreThreshold = Annotated[
    float | None,
    typer.Option("--score-threshold", min=0, max=1, help="Drop what scores below. Default: the model's own."),
]
IouThreshold = Annotated[
    float | None,
    typer.Option(
        "--iou-threshold",
        min=0,
        max=1,
        help="Of two boxes of a class that overlap more, drop the weaker. Default: the model's own.",
    ),
]
BudgetMs = Annotated[
    float | None,
    typer.Option("--budget-ms", min=0.001, metavar="MS", help="What an answer may take, held against the p95."),
]


@dataclass(frozen=True)
class Access:
    """How to connect to a server, and what to show it."""

    PANEL: ClassVar[str] = "Access"

    ca: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False, metavar="FILE", envvar="TRIPTYCH_CA", help="Encrypt, and trust these authorities (PEM)."
        ),
    ] = None
    certificate: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            metavar="FILE",
            envvar="TRIPTYCH_CERTIFICATE",
            help="Our own certificate, if the server asks (PEM).",
        ),
    ] = None
    certificate_key: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False, metavar="FILE", envvar="TRIPTYCH_CERTIFICATE_KEY", help="The key of --certificate (PEM)."
        ),
    ] = None
    server_name: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            envvar="TRIPTYCH_SERVER_NAME",
            help="The name in the server's certificate, if the address has another.",
        ),
    ] = ""
    server_key: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            metavar="FILE",
            envvar="TRIPTYCH_SERVER_KEY",
            help="The key of a server that is not ours on this machine.",
        ),
    ] = None

    def credentials(self) -> Credentials:
        """Return them as the library takes them.

        Raises:
            typer.BadParameter: an option is missing that another one needs.
        """
        try:
            return Credentials(**vars(self))
        except ContractError as error:
            raise typer.BadParameter(str(error)) from error


Precision = Literal["fp32", "fp16", "bf16", "int8"]
"""What a detector calculates in."""
AsJson = Annotated[bool, typer.Option("--json", help="Print the result on standard output as JSON.")]

__all__ = [
    "DEFAULT_ADDRESS",
    "DEFAULT_REPOSITORY",
    "DEFAULT_TIMEOUT_S",
    "Access",
    "Address",
    "AsJson",
    "BudgetMs",
    "Counts",
    "Integers",
    "IouThreshold",
    "ModelRepository",
    "Numbers",
    "Precision",
    "ScoreThreshold",
    "Size",
    "Sizes",
    "TimeoutS",
    "Triple",
    "Words",
    "grouped",
]


def grouped(command: Command) -> Command:
    """Spread the dataclasses in a command's signature into options, and collect them again when it is called.

    A group's `PANEL`, a ClassVar, is the heading of its options in `--help`.

        @dataclass(frozen=True)
        class Load:
            PANEL: ClassVar[str] = "Load"
            users: Annotated[int, typer.Option(help="Users.")] = 1

        @grouped
        def loadtest(load: Load) -> None: ...
    """
    groups: dict[str, type[Any]] = {}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
        kind = parameter.annotation
        if isinstance(kind, type) and is_dataclass(kind):
            groups[name] = kind
            parameters += _options(kind)
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    def spread(**values: Any) -> None:
        collected = {
            name: kind(**{field.name: values.pop(field.name) for field in fields(kind)})
            for name, kind in groups.items()
        }
        command(**values, **collected)

    spread.__name__, spread.__doc__, spread.__module__ = command.__name__, command.__doc__, command.__module__
    spread.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    spread.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return spread  # type: ignore[return-value]


def _options(group: type[Any]) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    panel = getattr(group, "PANEL", None)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=_under(panel, hints[field.name]),
        )
        for field in fields(group)
    ]


def _under(panel: str | None, annotation: Any) -> Any:
    """Put an option under a heading of `--help`, unless it names one itself."""
    kind, info = annotation.__origin__, copy.copy(annotation.__metadata__[0])
    info.rich_help_panel = info.rich_help_panel or panel
    return Annotated[kind, info]
