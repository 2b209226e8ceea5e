"""Pages that the docs site makes from the code when it is built: one for each command, and the exit codes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from triptych.cli.app import app
from triptych.cli.console import EXIT_CODES

NAV_ENTRY = "commands/"
"""The entry of the navigation that stands for all commands."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put a page for each command into the navigation."""
    pages = ["commands/index.md", *({name: f"commands/{name}.md"} for name, _, _ in _commands())]
    config.nav = [_filled(entry, pages) for entry in config.nav or []]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Write the pages."""
    pages = {"commands/index.md": _overview(), "exit_codes.md": _exit_codes()}
    pages |= {f"commands/{name}.md": _page(name, command, context) for name, command, context in _commands()}
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    return files


def _filled(entry: Any, pages: list[Any]) -> Any:
    if isinstance(entry, dict):
        return {title: pages if inside == NAV_ENTRY else inside for title, inside in entry.items()}
    return entry


def _commands() -> Iterator[tuple[str, Any, Any]]:
    """Give every command with its name and its context (typer's own, which knows how to print it)."""
    group: Any = typer.main.get_command(app)
    context = group.context_class(group, info_name="triptych")
    for name, command in group.commands.items():
        if not command.hidden:
            yield name, command, command.context_class(command, info_name=name, parent=context)


def _overview() -> str:
    lines = [
        "# Commands",
        "",
        "`triptych COMMAND --help` says the same on your terminal. Every command ends with one of these "
        "[exit codes](../exit_codes.md).",
        "",
    ]
    for heading, commands in groupby(_commands(), key=lambda entry: str(entry[1].rich_help_panel)):
        lines += [f"## {heading}", "", "| command | what it does |", "| --- | --- |"]
        lines += [
            f"| [`{name}`]({name}.md) | {_plain(_first_sentence(command.help))} |" for name, command, _ in commands
        ]
        lines.append("")
    return "\n".join(lines)


def _page(name: str, command: Any, context: Any) -> str:
    usage = f"triptych {name} {' '.join(command.collect_usage_pieces(context))}"
    lines = [f"# triptych {name}", "", _plain(command.help or ""), "", "```text", usage, "```", ""]
    options = [parameter for parameter in command.get_params(context) if parameter.get_help_record(context)]
    for panel, parameters in groupby(sorted(options, key=_panel_order(options)), key=_panel):
        lines += [f"## {panel}", ""]
        for parameter in parameters:
            heading, text = parameter.get_help_record(context)
            lines += [f"`{heading}`", f":   {_plain(text) or '(no description)'}", ""]
    return "\n".join(lines)


def _panel(parameter: Any) -> str:
    named: str | None = getattr(parameter, "rich_help_panel", None)
    return named or ("Arguments" if parameter.param_type_name == "argument" else "Options")


def _panel_order(parameters: list[Any]) -> Any:
    """Sort by the panel, in the order in which the panels first appear, and arguments before all else."""
    panels = list(dict.fromkeys(["Arguments", *map(_panel, parameters)]))
    return lambda parameter: panels.index(_panel(parameter))


def _exit_codes() -> str:
    rows = [f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items()]
    return "\n".join(
        [
            "# Exit codes",
            "",
            "Every command ends with one of these.",
            "",
            "| code | meaning |",
            "| --- | --- |",
            *rows,
            "",
        ]
    )


def _first_sentence(text: str | None) -> str:
    return (text or "").strip().split("\n\n")[0].replace("\n", " ")


def _plain(text: str) -> str:
    """Keep Markdown from reading signs in a help text; what stands in backticks stays code."""
    parts = re.split(r"(`[^`\n]*`)", text.strip())
    return "".join(part if part.startswith("`") else re.sub(r"[\\*_<>\[\]|#]", _entity, part) for part in parts)


def _entity(sign: re.Match[str]) -> str:
    return f"&#{ord(sign[0])};"
