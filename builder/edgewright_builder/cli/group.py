"""The group of all commands: each is imported when it is asked for, so that none waits for what others need."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group

# Each module's `register` adds exactly these commands; a test holds the two together.
COMMANDS_OF: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "fit": ("check", "plan", "calibrate"),
    "profiles": ("profiles",),
    "build": ("build", "report"),
    "push": ("push",),
    "device": ("status", "releases", "rollback", "gc", "scrub", "generate", "telemetry", "bench", "eval"),
    "top": ("top",),
    "diff": ("diff",),
    "keys": ("keys",),
    "mirror": ("mirror",),
})  # fmt: skip
MODULE_OF = {command: module for module, commands in COMMANDS_OF.items() for command in commands}


class LazyGroup(TyperGroup):
    """Typer's group, with commands that are not there before they are needed."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        """Names in the order of the table; nothing is imported."""
        return list(MODULE_OF)

    def get_command(self, ctx: typer.Context, cmd_name: str) -> TyperCommand | TyperGroup | None:  # type: ignore[override]
        """The command, imported if need be; for a name that is nobody's all are, so that its neighbours can be told."""
        for module in [MODULE_OF[cmd_name]] if cmd_name in MODULE_OF else COMMANDS_OF:
            if COMMANDS_OF[module][0] not in self.commands:
                self.commands.update(load_commands(module))
        return self.commands.get(cmd_name)  # type: ignore[return-value]


def load_commands(module: str) -> dict[str, TyperCommand | TyperGroup]:
    """The commands that a module of this package registers, by name."""
    holder = typer.Typer()
    import_module(f"edgewright_builder.cli.{module}").register(holder)
    return dict(get_group(holder).commands)  # type: ignore[arg-type]
