"""The command-line reference: one section a command, made from the commands themselves."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Any

from typer.main import get_command

from edgewright_agent.cli import app as agent_app
from edgewright_builder.cli.main import app as host_app

INTRODUCTION = """# Command line

This page is made from the commands. `edgewright` runs on the host, `edgewright-agent` on the board.
Both print the same text with `--help`.

| exit code | meaning |
|--:|---|
| 0 | done |
| 1 | the answer is no: a board refused, or a push was rolled back |
| 2 | bad input: a recipe, a model, an option, or a budget that nothing meets |
| 3 | something outside failed: a board out of reach, a wrong certificate, a full disk |
| 130 | Ctrl-C |

Set `EDGEWRIGHT_CREDENTIALS` to a credentials folder and leave `--credentials` out.
Set `EDGEWRIGHT_TRACEBACK` to see where an error was raised.
"""


def programs() -> dict[str, Any]:
    """The two programs' command groups by name."""
    return {"edgewright": get_command(host_app), "edgewright-agent": get_command(agent_app)}


def leaves(group: Any, words: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    """Every command of a group that runs something, with the words that name it."""
    found: list[tuple[tuple[str, ...], Any]] = []
    for name in group.list_commands(None):
        command = group.get_command(None, name)
        path = (*words, name)
        found += leaves(command, path) if hasattr(command, "list_commands") else [(path, command)]
    return found


def page() -> str:
    """The whole page in Markdown."""
    parts = [INTRODUCTION]
    for program, group in programs().items():
        parts.append(f"## {program}\n")
        parts += [_section(program, words, command) for words, command in leaves(group)]
    return "\n".join(parts)


def _section(program: str, words: tuple[str, ...], command: Any) -> str:
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    options = [parameter for parameter in command.params if parameter.param_type_name == "option"]
    usage = " ".join([program, *words, *(_usage(argument) for argument in arguments)])
    lines = [f"### {program} {' '.join(words)}\n", f"{_paragraphs(command.help)}\n"]
    lines.append(f"```text\n{usage}{' [OPTIONS]' if options else ''}\n```\n")
    if arguments or options:
        lines += ["| argument or option | meaning |", "|---|---|"]
        lines += [_row(f"`{_escaped(_metavar(argument))}`", argument) for argument in arguments]
        lines += [_row(_spelling(option), option) for option in options]
        lines.append("")
    return "\n".join(lines)


def _usage(argument: Any) -> str:
    return _metavar(argument) if argument.required else f"[{_metavar(argument)}]"


def _metavar(argument: Any) -> str:
    return str(argument.metavar or argument.name.upper()).strip("[]")


def _spelling(option: Any) -> str:
    flags = ", ".join(f"`{flag}`" for flag in (*option.opts, *option.secondary_opts))
    return flags if option.is_flag else f"{flags} {_kind(option)}"


def _kind(option: Any) -> str:
    names = {int: "number", float: "number", Path: "path"}
    kind = _escaped(option.metavar or "") or names.get(option.type_descriptor.annotation, "text")
    return f"*{kind}*" + (", repeatable" if option.multiple else "")


def _row(spelling: str, parameter: Any) -> str:
    notes = [" ".join((parameter.help or "").split())]
    if parameter.param_type_name == "option" and parameter.required:
        notes.append("Required.")
    default = parameter.default
    choices = _choices(parameter)
    if choices:
        notes.append(f"One of {', '.join(f'`{choice}`' for choice in choices)}.")
    default = default.value if isinstance(default, Enum) else default
    if parameter.show_default and default and isinstance(default, str | int | float) and default is not True:
        notes.append(f"Default: `{default:g}`." if isinstance(default, float) else f"Default: `{default}`.")
    if getattr(parameter, "envvar", None):
        notes.append(f"Environment: `{parameter.envvar}`.")
    text = " ".join(note for note in notes if note).replace("|", "\\|")
    return f"| {spelling} | {text} |"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def _choices(parameter: Any) -> list[str]:
    kind = parameter.type_descriptor.annotation
    return [choice.value for choice in kind] if isinstance(kind, type) and issubclass(kind, Enum) else []


def _paragraphs(text: str | None) -> str:
    """The help text with each paragraph on one line."""
    blocks = (text or "").replace("\f", "").split("\n\n")
    return "\n\n".join(" ".join(block.split()) for block in blocks)


if __name__ == "__main__":
    print(page())
