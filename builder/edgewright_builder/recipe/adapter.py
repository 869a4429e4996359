"""The recipe of an adapter: a YAML file with a `base`, which says what model boards already have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edgewright_builder.recipe.file import absolute, parse, read_yaml
from edgewright_builder.recipe.lineage import model_name
from edgewright_builder.recipe.model import (
    Data,
    DataTeacher,
    Evaluate,
    Finetune,
    KnowledgeTeacher,
    Optimizer,
    Projection,
    Recipe,
    ReleaseName,
    ReleaseVersion,
    evaluate_from,
    load_recipe,
)


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Adapter(_Section):
    """What is trained, and how. There is no search: the defaults are the pipeline's own starting point."""

    rank: Annotated[int, Field(ge=1, le=256)] = 8  # r; at most what the base was built for
    # projections to train; none: all the base takes
    modules: Annotated[tuple[Projection, ...], Field(min_length=1)] | None = None
    scale: Annotated[float, Field(gt=0, le=100)] = 2.0  # a: ΔW = a·BA
    epochs: Annotated[int, Field(ge=1, le=100)] = 1  # passes over the data
    optimizer: Optimizer = "adam"  # adam or muon
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 5e-4  # η
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.0  # w_d
    temperature: Annotated[float, Field(gt=0, le=100)] = 1.0  # T, of the distillation
    # α, the share of the KL in the loss; none: 1 with a knowledge teacher, else 0
    alpha: Annotated[float, Field(ge=0, le=1)] | None = None


class AdapterTeachers(_Section):
    """Both may be left out: the data can be one's own, and cross-entropy learns from the data alone."""

    data: DataTeacher | None = None
    knowledge: KnowledgeTeacher | None = None  # None: the base as it was before it was quantized


class AdapterRecipe(_Section):
    """The whole file."""

    name: ReleaseName  # the release's name
    version: ReleaseVersion = "1"  # the release's version, for people
    # none: the base's, so that it is no downgrade
    release_counter: Annotated[int, Field(ge=1)] | None = None
    task: str  # a name for people
    seed: int = 0  # of data and training
    base: Path  # the folder of the base's run, or the artifact in it
    adapter: Adapter = Adapter()
    teachers: AdapterTeachers = AdapterTeachers()
    data: Data = Data()
    finetune: Finetune = Finetune()
    evaluate: Evaluate = Evaluate()

    @model_validator(mode="after")
    def _data_has_a_source(self) -> AdapterRecipe:
        if self.data.file is None and self.teachers.data is None:
            raise ValueError("give `teachers.data` (a model that writes the data) or `data.file` (your own)")
        return self

    @property
    def alpha(self) -> float:
        """How much of the loss is the KL; the rest is cross-entropy."""
        if self.adapter.alpha is not None:
            return self.adapter.alpha
        return 0.0 if self.teachers.knowledge is None else 1.0

    def portable(self) -> dict[str, Any]:
        """The recipe's values as an artifact carries them: paths cut to names, without endpoints and keys."""
        values = self.model_dump(mode="json")
        values["base"] = self.base.name
        if self.teachers.knowledge is not None:
            values["teachers"]["knowledge"]["model"] = model_name(self.teachers.knowledge.model)
        if self.teachers.data is not None:
            values["teachers"]["data"] = {"model": model_name(self.teachers.data.model)}
        values["data"]["file"] = None if self.data.file is None else self.data.file.name
        values["data"]["prompts"] = None if self.data.prompts is None else self.data.prompts.name
        values["evaluate"] = {"tasks": [Path(task).name for task in self.evaluate.tasks]}
        return values


def load_any_recipe(path: Path) -> Recipe | AdapterRecipe:
    """The recipe in `path`: an adapter's if it names a `base`. Raises InputError as `load_recipe`."""
    return load_adapter_recipe(path) if "base" in read_yaml(path) else load_recipe(path)


def load_adapter_recipe(path: Path) -> AdapterRecipe:
    """The adapter's recipe in `path`, its relative paths taken from its own folder. Raises as `load_recipe`."""
    recipe, folder = parse(AdapterRecipe, path), path.resolve().parent
    data = recipe.data.model_copy(
        update={"file": absolute(recipe.data.file, folder), "prompts": absolute(recipe.data.prompts, folder)}
    )
    update = {
        "base": folder / recipe.base.expanduser(),
        "data": data,
        "evaluate": evaluate_from(recipe.evaluate, folder),
    }
    return recipe.model_copy(update=update)
