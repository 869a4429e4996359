"""`edgewright check-teacher`: whether a student can learn from a teacher of another vocabulary."""

from __future__ import annotations

from typing import Annotated

import typer

from edgewright_builder.alignment.comparable_share import MINIMUM
from edgewright_builder.cli.options import AsJson, Save
from edgewright_builder.cli.output import console, emit
from edgewright_builder.show.sheet import print_result

_SOURCE = "A hub id, folder, GGUF file or pypi:NAME==VERSION."


def check_teacher(
    teacher: Annotated[str, typer.Argument(help=_SOURCE, show_default=False)],
    student: Annotated[str, typer.Argument(help=_SOURCE, show_default=False)],
    minimum: Annotated[
        float, typer.Option(help="Share of tokens that both must cut alike.", min=0, max=1)
    ] = MINIMUM,
    as_json: AsJson = False,
    save: Save = None,
) -> None:
    """Say how well two tokenizers align, from them alone. Exit code 0: the teacher fits; 1: it does not."""
    from edgewright_builder.python_api.teachers import (
        check_teacher as check,  # here, so that --help answers at once
    )

    result = check(teacher, student, minimum=minimum)
    emit("check-teacher", result, as_json=as_json, save=save)
    if not as_json:
        print_result(console(), result)
    if not result.fits:
        raise typer.Exit(1)
