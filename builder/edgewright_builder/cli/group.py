"""The group of all commands: each is imported when it is called, so that none waits for what others need."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import cast

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

# Each command, and where it is: the file in this package, then its function, or the app of a group of commands.
COMMANDS: Mapping[str, str] = MappingProxyType({
    "check": "host.check:check",
    "check-teacher": "host.check_teacher:check_teacher",
    "plan": "host.plan:plan",
    "profiles": "host.profiles:app",
    "build": "host.build:build",
    "export": "host.export:export",
    "report": "host.report:report",
    "study": "host.study:app",
    "push": "board.push:push",
    "status": "board.status:status",
    "releases": "board.releases:releases",
    "rollback": "board.rollback:rollback",
    "gc": "board.gc:gc",
    "scrub": "board.scrub:scrub",
    "generate": "board.generate:generate",
    "telemetry": "board.telemetry:telemetry",
    "top": "board.top:top",
    "bench": "board.bench:bench",
    "eval": "board.eval:evaluate",
    "calibrate": "board.calibrate:calibrate",
    "diff": "host.diff:diff",
    "keys": "host.keys:app",
    "mirror": "host.mirror:app",
})  # fmt: skip


class LazyGroup(TyperGroup):
    """Typer's group, with commands that are not there before they are needed."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        """Returns the names in the order of the table, and imports nothing."""
        return list(COMMANDS)

    def get_command(self, ctx: typer.Context, cmd_name: str) -> TyperCommand | TyperGroup | None:  # type: ignore[override]
        """Returns the command, imported if need be. An unknown name imports all, to suggest similar ones."""
        for name in [cmd_name] if cmd_name in COMMANDS else COMMANDS:
            if name not in self.commands:
                self.commands[name] = load_command(name)
        return self.commands.get(cmd_name)  # type: ignore[return-value]


def load_command(name: str) -> TyperCommand | TyperGroup:
    """Returns the command or group of commands that the table names."""
    module, _, attribute = COMMANDS[name].partition(":")
    target = getattr(import_module(f"edgewright_builder.cli.{module}"), attribute)
    if isinstance(target, typer.Typer):
        group = get_command(target)
        group.name = name
        return cast("TyperGroup", group)
    holder = typer.Typer(add_completion=False)
    holder.command(name)(target)
    return cast("TyperCommand", get_command(holder))
