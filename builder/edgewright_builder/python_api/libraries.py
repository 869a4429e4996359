"""Errors of Python, of libraries and of the disk, said in our own sentences."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgewright.errors import InputError, OutsideError

EXTRA_OF_MODULE = {
    "torch": "builder", "transformers": "builder", "peft": "builder", "optuna": "builder", "gptqmodel": "builder",
    "safetensors": "builder", "onnx": "builder", "onnxruntime_genai": "builder", "jinja2": "builder",
    "markupsafe": "builder", "tokenizers": "onnx", "numpy": "onnx", "onnxruntime": "onnx", "lm_eval": "harness",
}  # fmt: skip
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
ACCESS_ERRORS = (errno.EACCES, errno.EPERM, errno.EROFS)  # of reading too
# Libraries in other languages raise errors of their own: safetensors (Rust) and SQLite say this.
DISK_MESSAGES = re.compile(
    "No space left on device|Disk quota exceeded|File too large|disk is full|disk I/O error"
)


@contextmanager
def own_errors() -> Iterator[None]:
    """Raises InputError for a library that is not installed, OutsideError for a disk or a file that can't be used."""
    try:
        yield
    except (ImportError, OSError, RuntimeError) as error:
        own = own_error(error)
        if own is None:
            raise
        raise own from error


def own_error(error: BaseException) -> InputError | OutsideError | None:
    """Returns the sentence for an error that is not ours; None where there is none."""
    if isinstance(error, ModuleNotFoundError):
        extra = EXTRA_OF_MODULE.get((error.name or "").split(".")[0])
        if extra is None:
            return None
        return InputError(
            f"This needs {error.name}, which is not installed: pip install 'edgewright[{extra}]'."
        )
    if isinstance(error, OSError) and error.errno in ACCESS_ERRORS and error.filename:
        return OutsideError(
            f"{os.fsdecode(error.filename)} may not be read or written: {os.strerror(error.errno)}. Give this user the "
            "right to it, or choose another path."
        )
    if (refusal := disk_refusal(error)) is not None:
        return OutsideError(f"The disk refused to write{refusal}. Make room or choose another folder.")
    return None


def disk_refusal(error: BaseException) -> str | None:
    """Returns where and why the disk refused to write, if `error` or what caused it says so."""
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        where = f" at {Path(os.fsdecode(error.filename))}" if error.filename else ""
        return f"{where}: {os.strerror(error.errno)}"
    if match := DISK_MESSAGES.search(str(error)):
        return f": {match[0]}"
    origin = error.__cause__ or error.__context__
    return None if origin is None else disk_refusal(origin)
