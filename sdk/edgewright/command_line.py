"""Runs a command line made with Typer. Words that it can't take are answered in one sentence, like all bad input."""

from __future__ import annotations

import codecs
import errno
import io
import math
import os
import sys
from typing import Any

import typer
from pydantic import ValidationError

from edgewright.errors import InputError
from edgewright.validation import wanted

# What is wrong with a path, and not with the disk.
PATH_ERRORS = (
    errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENOENT, errno.EEXIST,
)  # fmt: skip
SHOWN_CHARACTERS = 100  # of a path
# The class of all complaints about words. Typer exports only this one of its children.
_UsageError: Any = typer.BadParameter.__mro__[1]


def run(app: typer.Typer) -> None:
    """Runs the command that the process was called with, and exits.

    Raises InputError for words that it can't take, and for a path that no file can have.
    """
    _write_what_the_terminal_can()
    try:
        code = app(standalone_mode=False)
    except OSError as error:
        if error.errno not in PATH_ERRORS or not isinstance(error.filename, str):
            raise
        shown = error.filename[:SHOWN_CHARACTERS]
        raise InputError(f"{shown}: {os.strerror(error.errno)}; give another path.") from error
    except _UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # its message is the help, and was printed
            sys.exit(error.exit_code)
        raise InputError(_sentence(error)) from None
    sys.exit(code)


def speaks_unicode() -> bool:
    """Whether standard output takes every character, as by UTF-8. JSON for another one is written in ASCII."""
    return codecs.lookup(sys.stdout.encoding or "ascii").name == "utf-8"


def _write_what_the_terminal_can() -> None:
    """Has a character that the terminal's encoding lacks written as an escape, such as \\u2026, instead of failing."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def finite(value: float) -> float:
    """Returns the value of an option. Raises typer.BadParameter for NaN, which no range of older Typers excludes."""
    if not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not finite")
    return value


def _sentence(error: Any) -> str:
    """Returns what is wrong, with the value where Typer leaves it out, and where to read what is right."""
    complaint = " ".join(error.format_message().split())
    if isinstance(error.__cause__, ValidationError):
        first = error.__cause__.errors(include_url=False)[0]
        value = repr(first["input"])
        if value not in complaint:
            complaint = f"{complaint.removesuffix(error.message)}{value}, {wanted(first)}"
    command = "edgewright" if error.ctx is None else error.ctx.command_path
    end = "" if complaint.endswith(("?", ".")) else "."
    return f"{complaint}{end} See {command} --help."
