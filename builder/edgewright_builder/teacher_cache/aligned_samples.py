"""The samples as T2 reads them: the same dialogues in its own chat template and tokens, and where both compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgewright_builder.alignment.boundaries import Boundaries, common_boundaries, equal_parts
from edgewright_builder.alignment.comparable_share import Share, share_of
from edgewright_builder.alignment.end_tokens import end_tokens
from edgewright_builder.alignment.projection import Ends
from edgewright_builder.alignment.vocabulary import Vocabulary, vocabulary_of
from edgewright_builder.models.folder import load_tokenizer
from edgewright_builder.train.samples import Sample, chat_texts

if TYPE_CHECKING:
    from tokenizers import Encoding


@dataclass(frozen=True)
class Reader:
    """A model's tokenizer as transformers loads it, and its vocabulary."""

    tokenizer: Any
    vocabulary: Vocabulary
    ends: frozenset[int]

    @property
    def begins_with(self) -> str:
        """What T2 gets before a text: the token that begins one, unless its chat template writes that itself."""
        tokens = self.tokenizer("a").input_ids
        begins = bool(tokens) and tokens[0] == self.tokenizer.bos_token_id
        return self.tokenizer.bos_token if begins and self.tokenizer.chat_template is None else ""

    def encode(self, text: str) -> Encoding:
        """Returns the encoding of a rendered dialogue."""
        encoding: Encoding = self.tokenizer(text, add_special_tokens=False).encodings[0]
        return encoding


def read_tokenizer(folder: Path, name: str) -> Reader:
    """Returns the reader of the tokenizer in `folder`. Raises InputError where it is damaged or not a fast one."""
    tokenizer = load_tokenizer(folder)
    vocabulary = vocabulary_of(tokenizer, name)
    return Reader(tokenizer, vocabulary, end_tokens(folder, vocabulary))


@dataclass(frozen=True)
class AlignedSample:
    """One sample in T2's tokens, and the counted positions of both that are compared with each other."""

    teacher: Sample  # counted from its first compared position
    student_positions: tuple[int, ...]  # among the student's counted positions
    teacher_positions: tuple[int, ...]  # among T2's


@dataclass(frozen=True)
class AlignedSamples:
    """All samples as T2 reads them."""

    samples: Sequence[AlignedSample]
    share: Share
    ends: Ends


def align_samples(
    student: Reader,
    teacher: Reader,
    pairs: Sequence[dict[str, Any]],
    samples: Sequence[Sample],
    loss_on: Literal["response", "sequence"],
) -> AlignedSamples:
    """Returns for each pair, of which `samples` are the student's tokens, how T2 reads it.

    Raises InputError where T2's chat template can't write a dialogue.
    """
    aligned: list[AlignedSample] = []
    share, ends = Share(0, 0, 0, 0), (set(student.ends), set(teacher.ends))
    begin = teacher.begins_with
    for pair, sample in zip(pairs, samples, strict=True):
        contents = [*(_prompt_contents(pair) if loss_on == "sequence" else ()), pair["output"]]
        ours, theirs = chat_texts(student.tokenizer, pair), chat_texts(teacher.tokenizer, pair)
        renderings = (Rendering(student, *ours), Rendering(teacher, begin + theirs[0], begin + theirs[1]))
        tokens, boundaries = _compared(*renderings, contents, sample)
        sides = (student.vocabulary, sample.tokens), (teacher.vocabulary, tokens)
        share += share_of(boundaries, *sides, sample.counted_tokens)
        _add_ends(ends, *sides, boundaries)
        aligned.append(_aligned(sample, tokens, boundaries))
    return AlignedSamples(aligned, share, Ends(frozenset(ends[0]), frozenset(ends[1])))


@dataclass(frozen=True)
class Rendering:
    """A dialogue as one model reads it."""

    reader: Reader
    prompt: str
    text: str  # prompt and answer

    @property
    def answer_starts(self) -> int:
        """The byte before which no answer begins: prompt and text are alike until there."""
        alike = zip(self.prompt, self.text, strict=False)
        length = next((i for i, (a, b) in enumerate(alike) if a != b), len(self.prompt))
        return len(self.text[:length].encode())


def _prompt_contents(pair: dict[str, Any]) -> list[str]:
    history = [text for turn in pair.get("history") or () for text in turn]
    return [pair.get("system") or "", *history, pair["instruction"], pair.get("input") or ""]


def _compared(
    ours: Rendering, theirs: Rendering, contents: Sequence[str], sample: Sample
) -> tuple[list[int], Boundaries]:
    """Returns T2's tokens of the pair, and the boundaries among the student's counted positions."""
    parts = equal_parts(
        ours.text.encode(),
        theirs.text.encode(),
        [text.strip().encode() for text in contents],
        (ours.answer_starts, theirs.answer_starts),
    )
    encodings = ours.reader.encode(ours.text), theirs.reader.encode(theirs.text)
    student = ours.reader.vocabulary.token_ends(ours.text, encodings[0])[: len(sample.tokens)]
    teacher = theirs.reader.vocabulary.token_ends(theirs.text, encodings[1])
    return list(encodings[1].ids), common_boundaries(parts, student, teacher).within(
        sample.first, len(sample.tokens) - 1
    )


def _add_ends(
    ends: tuple[set[int], set[int]],
    student: tuple[Vocabulary, Sequence[int]],
    teacher: tuple[Vocabulary, Sequence[int]],
    boundaries: Boundaries,
) -> None:
    """Adds the special tokens with which both templates go on at one place: the ends of their turns."""
    for ours, theirs in zip(boundaries.student, boundaries.teacher, strict=True):
        following = [
            next((token for token in tokens[place + 1 : place + 2] if token in vocabulary.special), None)
            for (vocabulary, tokens), place in ((student, ours), (teacher, theirs))
        ]
        if following[0] is not None and following[1] is not None:
            ends[0].add(following[0])
            ends[1].add(following[1])


def _aligned(sample: Sample, tokens: Sequence[int], boundaries: Boundaries) -> AlignedSample:
    if not boundaries.teacher:
        return AlignedSample(Sample((tokens[0], tokens[0]), 0), (), ())
    first, last = boundaries.teacher[0], boundaries.teacher[-1]
    read = (*tokens[: last + 1], tokens[last])  # what follows the last compared position counts for nothing
    return AlignedSample(
        Sample(read, first),
        tuple(token - sample.first for token in boundaries.student),
        tuple(token - first for token in boundaries.teacher),
    )
