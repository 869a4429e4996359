"""`edgewright`: the host's command line. Commands parse, call and print; nothing here imports torch.

Exit codes: 0 done, 1 the answer is no, 2 bad input, 3 something outside failed, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from edgewright import __version__
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

EXTRA_OF_MODULE = {
    "torch": "builder", "transformers": "builder", "peft": "builder", "optuna": "builder", "gptqmodel": "builder",
    "safetensors": "builder", "onnx": "builder", "onnxruntime_genai": "builder", "tokenizers": "onnx",
    "lm_eval": "harness",
}  # fmt: skip

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)
# Libraries in other languages raise errors of their own: safetensors (Rust) and SQLite say this.
DISK_MESSAGES = re.compile(
    "No space left on device|Disk quota exceeded|File too large|disk is full|disk I/O error"
)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Runs the command line; every expected failure is one sentence on stderr and an exit code."""
    try:
        app()
    except EdgewrightError as error:
        _say(str(error))
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        if (extra := EXTRA_OF_MODULE.get((error.name or "").split(".")[0])) is None:
            raise
        _say(f"This command needs {error.name}, which is not installed: pip install 'edgewright[{extra}]'.")
        sys.exit(2)
    except Exception as error:
        if (refusal := disk_refusal(error)) is None:
            raise
        _say(f"The disk refused to write{refusal}. Make room or choose another folder.")
        sys.exit(3)
    except KeyboardInterrupt:
        _say("Stopped. Run the same command again with --resume to go on.")
        sys.exit(130)


def disk_refusal(error: BaseException) -> str | None:
    """Where and why the disk refused to write, if `error` or what caused it says so."""
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        where = f" at {Path(os.fsdecode(error.filename))}" if error.filename else ""
        return f"{where}: {os.strerror(error.errno)}"
    if found := DISK_MESSAGES.search(str(error)):
        return f": {found[0]}"
    origin = error.__cause__ or error.__context__
    return None if origin is None else disk_refusal(origin)


def _say(sentence: str) -> None:
    if os.environ.get("EDGEWRIGHT_TRACEBACK"):
        traceback.print_exc()
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"edgewright: {sentence}", markup=False)


if __name__ == "__main__":
    main()
