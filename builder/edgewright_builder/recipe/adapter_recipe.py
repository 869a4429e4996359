"""The recipe of an adapter: a YAML file with a `base`, which says what model boards already have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from edgewright.file_model import FileModel, read_file
from edgewright.folders import expanded
from edgewright.yaml_files import read_mapping
from edgewright_builder.recipe.hyperparameters import Hyperparameters, Optimizer
from edgewright_builder.recipe.model_recipe import (
    NO_DATA,
    DataSettings,
    DataTeacher,
    DistillationSettings,
    EvaluateSettings,
    FinetuneSettings,
    KnowledgeTeacher,
    Projection,
    Recipe,
    ReleaseName,
    ReleaseVersion,
    Seed,
    data_from,
    evaluate_from,
    load_recipe,
    portable_distillation,
    portable_files,
    portable_teachers,
)


class AdapterSettings(FileModel):
    """What is trained, and how. There is no search: the defaults are the first trial of a model's search."""

    rank: Annotated[int, Field(ge=1, le=256)] = 8  # r; at most what the base was built for
    # projections to train; none: all the base takes
    modules: Annotated[tuple[Projection, ...], Field(min_length=1)] | None = None
    scale: Annotated[float, Field(gt=0, le=100)] = 2.0  # a: ΔW = a·BA
    epochs: Annotated[int, Field(ge=1, le=100)] = 1  # passes over the data
    # adam-rms: AdamW with updates of Muon's size; X-then-Y changes half-way
    optimizer: Optimizer = "adam"
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 5e-4  # η
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.0  # w_d
    temperature: Annotated[float, Field(gt=0, le=100)] = 1.0  # T, of the distillation
    # α, the share of the KL in the loss; none: 1 with a knowledge teacher, else 0
    alpha: Annotated[float, Field(ge=0, le=1)] | None = None


class AdapterTeachers(FileModel):
    """Both may be left out: the data can be one's own, and cross-entropy learns from the data alone."""

    data: DataTeacher | None = None
    knowledge: KnowledgeTeacher | None = None  # None: the base as it was before it was quantized


class AdapterRecipe(FileModel):
    """The whole file."""

    name: ReleaseName  # the release's name
    version: ReleaseVersion = "1"  # the release's version, for people
    # none: the base's, so that it is no downgrade
    release_counter: Annotated[int, Field(ge=1, le=10**18)] | None = None
    task: str  # a name for people
    seed: Seed = 0  # of data and training
    base: Path  # the folder of the base's run, or the artifact in it
    adapter: AdapterSettings = AdapterSettings()
    teachers: AdapterTeachers = AdapterTeachers()
    data: DataSettings = DataSettings()
    distillation: DistillationSettings = DistillationSettings()
    finetune: FinetuneSettings = FinetuneSettings()
    evaluate: EvaluateSettings = EvaluateSettings()

    @model_validator(mode="after")
    def _data_has_a_source(self) -> AdapterRecipe:
        if self.data.file is None and self.teachers.data is None:
            raise ValueError(NO_DATA)
        return self

    @property
    def alpha(self) -> float:
        """The share of the KL divergence in the loss; the rest is cross-entropy."""
        if self.adapter.alpha is not None:
            return self.adapter.alpha
        return 0.0 if self.teachers.knowledge is None else 1.0

    @property
    def hyperparameters(self) -> Hyperparameters:
        """How the adapter is trained."""
        settings = self.adapter
        return Hyperparameters(
            optimizer=settings.optimizer,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            lora_rank=settings.rank,
            lora_scale=settings.scale,
            temperature=settings.temperature,
            alpha=self.alpha,
            epochs=settings.epochs,
        )

    def portable(self) -> dict[str, Any]:
        """Returns the values as an artifact carries them: paths cut to names, without endpoints and keys."""
        values = self.model_dump(mode="json")
        values["base"] = self.base.name
        values["teachers"] = portable_teachers(self.teachers.data, self.teachers.knowledge)
        values["data"] |= portable_files(self.data)
        if self.finetune.precision is None:
            del values["finetune"]["precision"]
        values |= portable_distillation(values.pop("distillation"))
        values["evaluate"] = {"tasks": [Path(task).name for task in self.evaluate.tasks]}
        return values


def load_any_recipe(path: Path) -> Recipe | AdapterRecipe:
    """Returns the recipe in `path`: an adapter's if it names a `base`. Raises InputError as `load_recipe` does."""
    return load_adapter_recipe(path) if "base" in read_mapping(path, "recipe") else load_recipe(path)


def load_adapter_recipe(path: Path) -> AdapterRecipe:
    """Returns the adapter's recipe in `path`, its relative paths taken from its folder. Raises as `load_recipe`."""
    recipe, folder = read_file(AdapterRecipe, path, "recipe"), path.resolve().parent
    update = {
        "base": folder / expanded(recipe.base),
        "data": data_from(recipe.data, folder),
        "evaluate": evaluate_from(recipe.evaluate, folder),
    }
    return recipe.model_copy(update=update)
