"""What the builds of models and of adapters share: a student, its teacher, and the recipe that brings them together."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from edgewright.digests import digest_of, file_sha256
from edgewright_builder.fit.architecture import Architecture, architecture_from_config
from edgewright_builder.models.folder import (
    model_digest,
    read_config,
    require_same_vocabulary,
    vocabulary_difference,
)
from edgewright_builder.models.sources import local_digest, resolve_model, resolve_tokenizer
from edgewright_builder.recipe.adapter_recipe import AdapterRecipe
from edgewright_builder.recipe.model_recipe import KnowledgeTeacher, Recipe
from edgewright_builder.run.resumable_run import Run


@dataclass(frozen=True)
class Distillation:
    """A recipe's sections `data`, `finetune` and `evaluate` with the two models they are about.

    Models are fetched when they are first asked for; a digest reads all weights, once.
    """

    recipe: Recipe | AdapterRecipe
    run: Run
    student_source: str
    teacher_source: str

    @cached_property
    def student(self) -> Path:
        """The student before anything is changed. Its tokenizer writes the samples."""
        return resolve_model(self.student_source)

    @property
    def served_teacher(self) -> KnowledgeTeacher | None:
        """T2's section where a server has it; None where it is loaded here."""
        knowledge = self.recipe.teachers.knowledge
        return knowledge if knowledge is not None and knowledge.endpoint is not None else None

    @cached_property
    def teacher(self) -> Path:
        """T2, the knowledge teacher; of a served one the folder of its tokenizer."""
        served = self.served_teacher
        if served is None:
            return resolve_model(self.teacher_source)
        return resolve_tokenizer(served.tokenizer or served.model)

    @cached_property
    def data_teacher_digest(self) -> str | None:
        """The digest of T1's files where they lie on this machine; None for one of a server, the hub or PyPI."""
        teacher = self.recipe.teachers.data
        return local_digest(teacher.model) if teacher is not None and teacher.endpoint is None else None

    @cached_property
    def student_digest(self) -> str:
        """The digest of the student's files."""
        return model_digest(self.student)

    @cached_property
    def teacher_digest(self) -> str:
        """The digest of T2's files; of a served one, of its name and its tokenizer: its weights can't be seen."""
        served = self.served_teacher
        if served is None:
            return model_digest(self.teacher)
        return digest_of([served.model, file_sha256(self.teacher / "tokenizer.json")])

    @cached_property
    def alignment(self) -> Literal["shared", "projected", "uld"]:
        """How the student is held against T2. Raises InputError where `shared` is asked for and is not so."""
        alignment = self.recipe.distillation.alignment
        if alignment == "shared":
            require_same_vocabulary(self.student, self.teacher)
        if alignment == "auto":
            return "shared" if vocabulary_difference(self.student, self.teacher) is None else "projected"
        return alignment

    @cached_property
    def architecture(self) -> Architecture:
        """The facts of the student's `config.json`."""
        return architecture_from_config(read_config(self.student))
