"""The file of a study: one recipe, the keys that vary, and what is compared."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from edgewright.errors import InputError
from edgewright.file_model import FileModel, read_file
from edgewright.folders import expanded
from edgewright_builder.recipe.model_recipe import ReleaseName
from edgewright_profiles import DeviceProfile, load_profile, names_file

# A level is a value of one recipe key, or a name with the values of several keys.
Levels = list[Any] | dict[str, dict[str, Any]]


CELLS_MAX = 10_000  # a cell takes minutes


class Tuning(FileModel):
    """A key whose level is chosen for each combination of factors, by the divergence of the 16-bit model.

    The choice never sees a 4-bit result, so a method can't win by having been tuned for it.
    """

    key: str  # a recipe key such as hyperparameters.learning_rate
    levels: Annotated[list[Any], Field(min_length=2)]  # the grid
    # factor: level at which the choice is made for all its levels, to save time
    at: Annotated[dict[str, str], Field(default_factory=dict)]


class PairedComparison(FileModel):
    """The question that the study answers: what does going from one level to the other change?"""

    factor: str  # the factor that is compared
    levels: tuple[str, str]  # (from, to), as they are written in `factors`
    replicates: str = "finetune.seed"  # the factor that repeats an experiment
    across: str | None = None  # the factor that the answer is to hold across, such as the tasks


class StudyFile(FileModel):
    """The whole file."""

    name: ReleaseName  # the study's name
    recipe: Path  # the recipe that every cell starts from
    device: str = "this-host"  # the device profile of every cell
    budget: str  # the most memory a model may take, like 320MiB
    factors: Annotated[
        dict[str, Levels], Field(min_length=1)
    ]  # what varies: a recipe key, or a name with several
    tune: Tuning | None = None  # none: every cell trains as its recipe says
    compare: PairedComparison | None = None  # none: the report lists the cells alone
    surface: tuple[str, str] | None = None  # two factors whose combinations are shown as a table and a figure
    interval: Annotated[float, Field(ge=0.5, lt=1)] = 0.9  # coverage of the intervals
    margin_points: Annotated[float, Field(gt=0)] = 0.5  # a difference below it makes no difference

    @field_validator("factors")
    @classmethod
    def _have_distinct_levels(cls, factors: dict[str, Levels]) -> dict[str, Levels]:
        if empty := [name for name, levels in factors.items() if not levels]:
            raise ValueError(f"`{empty[0]}` has no levels; give at least one")
        cells = math.prod(map(len, factors.values()))
        if cells > CELLS_MAX:
            raise ValueError(f"they make {cells:,} cells, expected {CELLS_MAX:,} at most; leave levels out")
        for name, levels in factors.items():
            _require_distinct(name, levels)
        return factors

    @model_validator(mode="after")
    def _tunes_what_no_factor_sets(self) -> StudyFile:
        if self.tune is None:
            return self
        _require_distinct(self.tune.key, self.tune.levels)
        for factor, levels in self.factors.items():
            for change in changes_of(factor, levels).values():
                if self.tune.key in change:
                    raise ValueError(
                        f"`tune.key` is `{self.tune.key}`, which the factor `{factor}` sets: remove one of them"
                    )
        return self

    @model_validator(mode="after")
    def _shows_what_varies(self) -> StudyFile:
        if self.surface is not None and self.surface[0] == self.surface[1]:
            raise ValueError(f"`surface` names `{self.surface[0]}` twice; it takes two factors")
        for factor in self.surface or ():
            if factor not in self.factors:
                raise ValueError(
                    f"`surface` names `{factor}`, which is not among the factors {list(self.factors)}"
                )
        return self

    @model_validator(mode="after")
    def _tunes_where_it_varies(self) -> StudyFile:
        for factor, level in ({} if self.tune is None else self.tune.at).items():
            if factor not in self.factors:
                raise ValueError(
                    f"`tune.at` names `{factor}`, which is not among the factors {list(self.factors)}"
                )
            if level not in (names := level_names(self.factors[factor])):
                raise ValueError(f"`tune.at` has {level}; `{factor}` has the levels {names}")
            if self.compare is not None and factor == self.compare.factor:
                raise ValueError(
                    f"`tune.at` names the compared factor `{factor}`: each of its levels needs its own choice"
                )
        return self

    @model_validator(mode="after")
    def _compares_what_varies(self) -> StudyFile:
        if self.compare is None:
            return self
        roles = (self.compare.factor, self.compare.replicates, self.compare.across)
        for role in roles:
            if role is not None and role not in self.factors:
                raise ValueError(
                    f"`compare` names `{role}`, which is not among the factors {list(self.factors)}"
                )
        named = [role for role in roles if role is not None]
        if twice := next((role for role in named if named.count(role) > 1), None):
            raise ValueError(
                f"`compare` names `{twice}` twice; `factor`, `replicates` and `across` are different factors"
            )
        names = level_names(self.factors[self.compare.factor])
        for level in self.compare.levels:
            if level not in names:
                raise ValueError(
                    f"`compare.levels` has {level}; `{self.compare.factor}` has the levels {names}"
                )
        if self.compare.levels[0] == self.compare.levels[1]:
            raise ValueError("`compare.levels` has the same level twice: there are no pairs to compare")
        return self

    @model_validator(mode="after")
    def _has_replicates_enough(self) -> StudyFile:
        if self.compare is None:
            return self
        given, needed = len(self.factors[self.compare.replicates]), replicates_min(self.interval)
        if given < needed:
            raise ValueError(
                f"an interval of {self.interval:.0%} needs {needed} levels of `{self.compare.replicates}`, not "
                f"{given}: that {given} pairs all point the same way happens by chance in "
                f"{2.0 ** (1 - given):.1%} of studies"
            )
        return self


def _require_distinct(name: str, levels: Levels) -> None:
    """Raises ValueError for a level that stands twice, and for two that are written alike in names and tables."""
    values = list(levels.values()) if isinstance(levels, dict) else levels
    for index, value in enumerate(values):
        if value in values[:index]:
            raise ValueError(f"`{name}` has the level {value} twice; remove one, it makes no difference")
    names = level_names(levels)
    for index, (value, written) in enumerate(zip(values, names, strict=True)):
        if written in names[:index]:
            other = values[names.index(written)]
            raise ValueError(
                f"`{name}` has the levels {other!r} and {value!r}, which are both written {written}; give them names, "
                f"such as `{name}: {{a: {{KEY: {other!r}}}, b: {{KEY: {value!r}}}}}`"
            )


def replicates_min(interval: float) -> int:
    """Returns the least n with 2¹⁻ⁿ ≤ 1 − interval: below it even n pairs of one sign may well be chance."""
    return math.ceil(math.log2(2 / (1 - interval)))


def level_names(levels: Levels) -> list[str]:
    """Returns how levels are written in names and tables."""
    return list(levels) if isinstance(levels, dict) else [level_name(value) for value in levels]


def level_name(value: Any) -> str:
    """Returns a value as it is written in names and tables; a switched-off section is `off`."""
    return "off" if value is False else f"{value:g}" if isinstance(value, float) else str(value)


def changes_of(factor: str, levels: Levels) -> Mapping[str, dict[str, Any]]:
    """Returns by level name which recipe keys the level sets, and to what."""
    if isinstance(levels, dict):
        return levels
    return {level_name(value): {factor: value} for value in levels}


def load_study(path: Path) -> StudyFile:
    """Returns the study in `path`, its recipe's path taken from the study's folder.

    Raises InputError that names the first wrong key, its value and what was expected.
    """
    study = read_file(StudyFile, path, "study")
    return study.model_copy(update={"recipe": path.resolve().parent / expanded(study.recipe)})


def profile_of(study: StudyFile, path: Path) -> DeviceProfile:
    """Returns the profile of the study in `path`: a file of one's own is taken from the study's folder.

    Raises InputError as `load_profile` does.
    """
    device = study.device
    return load_profile(path.resolve().parent / expanded(device) if names_file(device) else device)


def read_kept_study(path: Path) -> StudyFile:
    """Returns the study that a study's folder keeps. Raises InputError where it keeps none."""
    if not path.exists():
        raise InputError(f"{path.parent} holds no study; give the folder that `edgewright study` wrote.")
    return read_file(StudyFile, path, "study")
