"""`edgewright`: the host's command line. Commands parse, call and print; nothing here imports torch.

Exit codes: 0 done, 1 the answer is no, 2 bad input, 3 something outside failed, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated

import typer
from rich.console import Console

from edgewright import __version__
from edgewright.command_line import run
from edgewright.errors import EdgewrightError
from edgewright_builder.cli.group import LazyGroup

app = typer.Typer(
    name="edgewright",
    cls=LazyGroup,
    help="Specialised 4-bit language models for Jetson-class boards, made under a memory budget.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Runs the command line; every expected failure is one sentence on stderr and an exit code."""
    try:
        run(app)
    except EdgewrightError as error:
        _say(str(error))
        sys.exit(error.exit_code)
    except Exception as error:
        from edgewright_builder.python_api.libraries import own_error

        if (own := own_error(error)) is None:
            raise
        _say(str(own))
        sys.exit(own.exit_code)
    except KeyboardInterrupt:
        _say("Stopped.")
        sys.exit(130)


def _say(sentence: str) -> None:
    if os.environ.get("EDGEWRIGHT_TRACEBACK"):
        traceback.print_exc()
    line = " ".join(sentence.splitlines())
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"edgewright: {line}", markup=False)


if __name__ == "__main__":
    main()
