"""What stands on the command line itself: an option that would have no effect there is bad input."""

from __future__ import annotations

import typer

from edgewright.errors import InputError


def given(ctx: typer.Context, name: str) -> bool:
    """Whether the parameter was typed, not left at its default or taken from the environment."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def refuse_without(ctx: typer.Context, needed: str, *names: str) -> None:
    """Raises InputError if one of these parameters was typed, as each has no effect without what is `needed`."""
    for name in _typed(ctx, names):
        raise InputError(f"{name} has no effect without {needed}; give that too, or leave {name} out.")


def refuse_with(ctx: typer.Context, other: str, *names: str) -> None:
    """Raises InputError if one of these parameters was typed, as `other` leaves each without effect."""
    for name in _typed(ctx, names):
        raise InputError(f"{name} has no effect with {other}; leave one of them out.")


def _typed(ctx: typer.Context, names: tuple[str, ...]) -> list[str]:
    """Returns those that were typed, as they are written."""
    return [
        parameter.opts[0] if parameter.opts[0].startswith("-") else str(parameter.name).upper()
        for parameter in ctx.command.params
        if parameter.name in names and given(ctx, parameter.name)
    ]
