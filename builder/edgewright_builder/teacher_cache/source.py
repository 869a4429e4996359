"""Where T2's knowledge comes from: one interface, so that no stage knows which source it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from edgewright_builder.alignment.teacher_fit import require_aligned, share_lines
from edgewright_builder.teacher_cache import aligned_states, hidden_states, top_answers

if TYPE_CHECKING:
    from edgewright_builder.recipe.adapter_recipe import AdapterRecipe
    from edgewright_builder.recipe.model_recipe import KnowledgeTeacher, Recipe
    from edgewright_builder.run.distillation_inputs import Distillation
    from edgewright_builder.teacher_cache.prompt_scores import PromptScores
    from edgewright_builder.train.samples import Sample
    from edgewright_builder.train.teacher_knowledge import Knowledge


class Source(Protocol):
    """A source of T2's knowledge: how it is written to a folder, and read from it."""

    @property
    def inputs(self) -> Mapping[str, Any]:
        """What decides the result besides T2, the data and the student's tokens."""

    @property
    def products(self) -> Sequence[str]:
        """The files that it leaves."""

    def write(
        self, pairs: Sequence[dict[str, Any]], samples: Sequence[Sample], pad_token: int, folder: Path
    ) -> dict[str, Any]:
        """Asks T2 about the samples, which are the pairs in the student's tokens; goes on where it was killed."""

    def read(self, folder: Path, samples: Sequence[Sample]) -> Knowledge:
        """Returns what T2 said. Raises InputError or OutsideError where the folder does not hold these samples."""


def source_of(job: Distillation) -> Source:
    """Returns the source that the recipe asks for."""
    served, alignment = job.served_teacher, job.alignment
    if served is not None:
        return ServedTeacher(job, served, "shared" if alignment == "shared" else "projected")
    return SharedVocabulary(job) if alignment == "shared" else AlignedVocabularies(job, alignment)


@dataclass(frozen=True)
class SharedVocabulary:
    """A local T2 that shares the student's vocabulary.

    Where a loss is the labels' alone, T2 is asked about the held-out samples only: they are what is compared with it.
    """

    job: Distillation

    @property
    def inputs(self) -> Mapping[str, Any]:
        """Nothing more, or which samples are held out."""
        recipe = self.job.recipe
        if not _labels_alone(recipe):
            return {}
        return {"held_out": recipe.finetune.validation_fraction, "seed": recipe.seed}

    @property
    def products(self) -> Sequence[str]:
        """Its hidden states and its output head."""
        return hidden_states.PRODUCTS

    def write(
        self, pairs: Sequence[dict[str, Any]], samples: Sequence[Sample], pad_token: int, folder: Path
    ) -> dict[str, Any]:
        """Writes T2's hidden states at the student's counted tokens."""
        return _write_states(self.job, [samples[index] for index in self._asked(samples)], pad_token, folder)

    def read(self, folder: Path, samples: Sequence[Sample]) -> Knowledge:
        """Returns T2's exact distributions."""
        asked = self._asked(samples)
        states = hidden_states.read_hidden_states(
            folder, [samples[index] for index in asked], self.job.architecture.vocab_size
        )
        place = {index: position for position, index in enumerate(asked)}
        return replace(states, hidden_of=lambda index: states.hidden_of(place[index]))

    def _asked(self, samples: Sequence[Sample]) -> Sequence[int]:
        from edgewright_builder.train.samples import split

        recipe = self.job.recipe
        if not _labels_alone(recipe):
            return range(len(samples))
        return split(samples, recipe.finetune.validation_fraction, recipe.seed)[1]


@dataclass(frozen=True)
class AlignedVocabularies:
    """A local T2 with a vocabulary of its own."""

    job: Distillation
    method: aligned_states.Method

    @property
    def inputs(self) -> Mapping[str, Any]:
        """How the two vocabularies are compared."""
        return {"alignment": self.method}

    @property
    def products(self) -> Sequence[str]:
        """What the shared vocabulary has, and the alignment."""
        return (*hidden_states.PRODUCTS, aligned_states.FILE)

    def write(
        self, pairs: Sequence[dict[str, Any]], samples: Sequence[Sample], pad_token: int, folder: Path
    ) -> dict[str, Any]:
        """Aligns the samples, says what share of them aligns, and writes T2's hidden states at its own tokens.

        Raises InputError below the recipe's `distillation.minimum_aligned`.
        """
        aligned, shares = _write_alignment(self.job, self.method, pairs, samples, folder)
        return _write_states(self.job, aligned, pad_token, folder) | shares

    def read(self, folder: Path, samples: Sequence[Sample]) -> Knowledge:
        """Returns T2's distributions where they are compared with the student's."""
        return aligned_states.read_aligned_states(folder, samples)


@dataclass(frozen=True)
class ServedTeacher:
    """A T2 behind a server, which names the most likely tokens at each place."""

    job: Distillation
    served: KnowledgeTeacher
    alignment: Literal["shared", "projected"]

    @property
    def inputs(self) -> Mapping[str, Any]:
        """How many tokens it names, and how the vocabularies are compared."""
        return {"top_k": self.served.top_k, "alignment": self.alignment}

    @property
    def products(self) -> Sequence[str]:
        """Its answers, and the alignment of two vocabularies."""
        alignment = () if self.alignment == "shared" else (aligned_states.FILE,)
        return (*top_answers.PRODUCTS, *alignment)

    def write(
        self, pairs: Sequence[dict[str, Any]], samples: Sequence[Sample], pad_token: int, folder: Path
    ) -> dict[str, Any]:
        """Asks the server about every sample that was not answered before; `pad_token` is not needed.

        Raises as `AlignedVocabularies.write` and `PromptScores.score` do.
        """
        job = self.job
        shares: dict[str, float] = {}
        if self.alignment != "shared":
            samples, shares = _write_alignment(job, "projected", pairs, samples, folder)
        job.run.reporter.note(
            f"T2 names {self.served.top_k} tokens at each place; the loss is a KL divergence over them and one tail"
        )
        step, requests = job.run.reporter.step, self.served.requests
        scores = prompt_scores(self.served, job.teacher)
        return top_answers.cache_answers(scores, samples, requests, folder, step) | shares

    def read(self, folder: Path, samples: Sequence[Sample]) -> Knowledge:
        """Returns T2's answers where they are compared with the student's distributions."""
        import torch

        from edgewright_builder.train.aligned_knowledge import Positions, TopK

        vocabulary = self.job.architecture.vocab_size
        if self.alignment == "shared":
            answers = top_answers.read_answers(folder, samples)
            every = Positions(samples, lambda index: torch.arange(samples[index].counted_tokens))
            return TopK(every, answers.of, vocabulary, None)
        alignment = aligned_states.read_alignment(folder, samples)
        answers = top_answers.read_answers(folder, alignment.samples)
        return TopK(
            alignment.positions,
            lambda index: answers.of(index)[alignment.teacher_positions[index]],
            len(alignment.letters.student),
            alignment.letters,
        )


def prompt_scores(served: KnowledgeTeacher, tokenizer: Path) -> PromptScores:
    """Returns the client of a served T2, whose published tokenizer is in the folder."""
    from edgewright_builder.alignment.vocabulary import read_vocabulary
    from edgewright_builder.teacher_cache.prompt_scores import PromptScores

    assert served.endpoint is not None, "it is loaded here"
    vocabulary = read_vocabulary(tokenizer)
    return PromptScores(served.endpoint, served.model, served.top_k, vocabulary, served.api_key_env)


def _write_alignment(
    job: Distillation,
    method: aligned_states.Method,
    pairs: Sequence[dict[str, Any]],
    samples: Sequence[Sample],
    folder: Path,
) -> tuple[Sequence[Sample], dict[str, float]]:
    """Writes how the samples align, and says it. Returns them as T2 reads them, and the shares."""
    from edgewright_builder.alignment.projection import project
    from edgewright_builder.teacher_cache.aligned_samples import align_samples, read_tokenizer

    student = read_tokenizer(job.student, job.student_source)
    teacher = read_tokenizer(job.teacher, job.teacher_source)
    aligned = align_samples(student, teacher, pairs, samples, job.recipe.finetune.loss_on)
    for line in share_lines(aligned.share, student.vocabulary, teacher.vocabulary):
        job.run.reporter.note(line)
    require_aligned(aligned.share, job.recipe.distillation.minimum_aligned)
    named = max(teacher.vocabulary.names) + 1
    rows = named if job.served_teacher is not None else _vocabulary_rows(job.teacher)
    sizes = (_vocabulary_rows(job.student), rows)
    projection = project(student.vocabulary, teacher.vocabulary, aligned.ends, sizes)
    aligned_states.write_alignment(aligned.samples, projection, method, folder)
    shares = {"compared_share": aligned.share.compared_share, "equal_share": aligned.share.equal_share}
    return [sample.teacher for sample in aligned.samples], shares


def _labels_alone(recipe: Recipe | AdapterRecipe) -> bool:
    """Whether the recipe fixes α = 0, so that no training asks T2 anything."""
    return recipe.hyperparameters is not None and recipe.hyperparameters.alpha == 0


def _vocabulary_rows(folder: Path) -> int:
    """Returns the rows of a model's output head."""
    from edgewright_builder.fit.architecture import architecture_from_config
    from edgewright_builder.models.folder import read_config

    return architecture_from_config(read_config(folder)).vocab_size


def _write_states(
    job: Distillation, samples: Sequence[Sample], pad_token: int, folder: Path
) -> dict[str, Any]:
    batch_tokens, on_progress = job.recipe.finetune.batch_tokens, job.run.reporter.step
    return hidden_states.cache_hidden_states(
        job.teacher, samples, batch_tokens, pad_token, folder, on_progress
    )
