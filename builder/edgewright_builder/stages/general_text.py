"""General text as samples: what GPTQ calibrates on and recovery trains on besides the task's pairs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgewright.digests import file_sha256
from edgewright.errors import InputError
from edgewright_builder.data.general_text import general_passages, read_passages

if TYPE_CHECKING:
    from edgewright_builder.train.samples import Sample

GENERAL_VALIDATION_FRACTION = 0.1
SAMPLES_MIN = 2  # one to train on and one to validate


def general_samples(student: Path, file: Path | None, sequence_tokens: int) -> list[Sample]:
    """Returns the general text, each passage a sample that every token of counts; without a file what is shipped.

    Raises InputError for too little.
    """
    from edgewright_builder.models.folder import load_tokenizer
    from edgewright_builder.train.samples import Sample

    passages = general_passages() if file is None else read_passages(file)
    tokenizer = load_tokenizer(student)
    encoded = (tokenizer(passage).input_ids[:sequence_tokens] for passage in passages)
    samples = [Sample(tuple(tokens), 0) for tokens in encoded if len(tokens) > 1]
    if len(samples) < SAMPLES_MIN:
        raise InputError(
            f"The general text {file} holds {len(samples)} passages of more than one token; at least {SAMPLES_MIN} are "
            "needed, 100 are advised. Put blank lines between passages, or set `recover.general_share: 0` and "
            "`quantize.general_share: 0`."
        )
    return samples


def split_general(samples: Sequence[Sample], seed: int) -> tuple[list[int], list[int]]:
    """Returns the indices of what may be trained and calibrated on, and of what is held out."""
    from edgewright_builder.train.samples import split

    return split(samples, GENERAL_VALIDATION_FRACTION, seed) if samples else ([], [])


def general_digest(file: Path | None, share: float = 1.0) -> str:
    """Returns what a stage's fingerprint holds of the general text; one of which no share is read makes no difference.

    Raises InputError where it can't be read.
    """
    if file is None or share == 0:
        return "shipped"
    read_passages(file)
    return file_sha256(file)
