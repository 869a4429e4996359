"""T2's hidden states in its own tokens, with what aligns them to the student's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgewright.errors import InputError
from edgewright_builder.teacher_cache.aligned_samples import AlignedSample
from edgewright_builder.teacher_cache.hidden_states import read_head, read_states

if TYPE_CHECKING:
    from torch import Tensor

    from edgewright_builder.alignment.projection import Projection
    from edgewright_builder.train.aligned_knowledge import AlignedStates, Positions
    from edgewright_builder.train.cross_vocabulary import Letters
    from edgewright_builder.train.samples import Sample

FILE = "alignment.safetensors"
Method = Literal["projected", "uld"]
METHODS: tuple[Method, ...] = ("projected", "uld")


def write_alignment(
    samples: Sequence[AlignedSample], projection: Projection, method: Method, folder: Path
) -> None:
    """Writes `alignment.safetensors`: T2's samples, the compared positions of both sides, and the letters."""
    import torch
    from safetensors.torch import save_file

    def flat(rows: Sequence[Sequence[int]], name: str) -> dict[str, torch.Tensor]:
        lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
        values = torch.tensor([value for row in rows for value in row], dtype=torch.int32)
        return {name: values, f"{name}_lengths": lengths}

    tensors = {
        "student_letters": torch.tensor(projection.student, dtype=torch.int32),
        "teacher_letters": torch.tensor(projection.teacher, dtype=torch.int32),
        "teacher_first": torch.tensor([sample.teacher.first for sample in samples], dtype=torch.int32),
        **flat([sample.teacher.tokens for sample in samples], "teacher_tokens"),
        **flat([sample.student_positions for sample in samples], "student_positions"),
        **flat([sample.teacher_positions for sample in samples], "teacher_positions"),
    }
    # In a tensor, not in the file's metadata: those are written in an order that changes from run to run.
    tensors["settings"] = torch.tensor([projection.letters, METHODS.index(method)], dtype=torch.int32)
    save_file(tensors, folder / FILE)


@dataclass(frozen=True)
class Alignment:
    """How the samples align, read back."""

    samples: Sequence[Sample]  # as T2 reads them
    positions: Positions  # the student's counted positions that are compared
    teacher_positions: Sequence[Tensor]  # the same places among T2's counted positions
    letters: Letters
    method: Method


def read_alignment(folder: Path, samples: Sequence[Sample]) -> Alignment:
    """Returns how T2's reading aligns with `samples`, the student's. Raises InputError where it is of others."""
    import torch
    from safetensors.torch import load_file

    from edgewright_builder.train.aligned_knowledge import Positions
    from edgewright_builder.train.cross_vocabulary import Letters
    from edgewright_builder.train.samples import Sample

    tensors = load_file(folder / FILE)
    letters, method = tensors["settings"].tolist()
    if len(tensors["teacher_first"]) != len(samples):
        raise InputError(
            f"{folder} holds {len(tensors['teacher_first'])} samples, {len(samples)} are needed; delete {folder} and "
            "run again with --resume."
        )
    rows = {
        name: list(torch.split(tensors[name].long(), tensors[f"{name}_lengths"].tolist()))
        for name in ("teacher_tokens", "student_positions", "teacher_positions")
    }
    read = [
        Sample(tuple(tokens.tolist()), first)
        for tokens, first in zip(rows["teacher_tokens"], tensors["teacher_first"].tolist(), strict=True)
    ]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    alphabet = Letters(tensors["student_letters"].long(), tensors["teacher_letters"].long(), letters)
    return Alignment(
        read,
        Positions(samples, rows["student_positions"].__getitem__),
        rows["teacher_positions"],
        alphabet.to(device),
        METHODS[method],
    )


def read_aligned_states(folder: Path, samples: Sequence[Sample]) -> AlignedStates:
    """Returns T2's hidden states where they are compared with the student's, mapped from disk.

    A projection widens T2's head slice by slice, so the head stays as it is kept, mostly in 16 bits.
    Raises InputError or OutsideError where the cache does not hold these samples.
    """
    from edgewright_builder.train.aligned_knowledge import AlignedStates

    alignment = read_alignment(folder, samples)
    states = read_states(folder, alignment.samples)
    kept = read_head(folder)
    precision = kept.weight.dtype if alignment.method == "projected" else states(0).dtype
    return AlignedStates(
        alignment.positions,
        lambda index: states(index)[alignment.teacher_positions[index]],
        kept.of(slice(None), precision),
        alignment.letters,
        alignment.method,
    )
