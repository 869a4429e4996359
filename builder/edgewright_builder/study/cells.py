"""The cells of a study: one recipe for each combination of levels."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from edgewright.digests import digest_of
from edgewright.errors import InputError
from edgewright.validation import first_complaint
from edgewright.yaml_files import read_mapping
from edgewright_builder.recipe.model_recipe import Recipe, with_paths_from
from edgewright_builder.study.study_file import StudyFile, changes_of

IDENTITY_CHARACTERS = 8
NAME_CHARACTERS = 200  # a folder is called after the cell, and file systems take 255 bytes
UNUSUAL = re.compile(r"[/\x00-\x1f\x7f]")
# What these keys say reaches no figure of a study.
WITHOUT_EFFECT = ("name", "version", "release_counter")


@dataclass(frozen=True)
class TuningCandidate:
    """One level of the tuned key."""

    level: str
    trial: Recipe  # trains the first replicate with it, for the choice
    recipe: Recipe  # the cell's own, if the level is chosen


@dataclass(frozen=True)
class StudyCell:
    """One combination of levels."""

    name: str  # unique within the study, the same in every process
    levels: Mapping[str, str]  # factor → level's name
    recipe: Recipe
    candidates: tuple[TuningCandidate, ...] = ()  # none: nothing is tuned


def cells_of(study: StudyFile) -> list[StudyCell]:
    """Returns every combination, in the order of the file.

    Raises InputError for a factor that is no recipe key, a level that no recipe takes, and levels that make no
    difference.
    """
    document = read_mapping(study.recipe, "recipe")
    _require_keys(study)
    cells = [_cell(study, document, levels) for levels in _combinations(study)]
    seen: dict[str, StudyCell] = {}
    for cell in cells:
        identity = _identity(cell.recipe)
        if (twin := seen.get(identity)) is not None:
            raise InputError(
                f"The cells {_levels_text(twin.levels)} and {_levels_text(cell.levels)} are the same recipe: their "
                "levels make no difference. Remove one of them."
            )
        seen[identity] = cell
    return cells


def _combinations(study: StudyFile) -> Iterator[dict[str, str]]:
    names = [list(changes_of(factor, levels)) for factor, levels in study.factors.items()]
    for combination in itertools.product(*names):
        yield dict(zip(study.factors, combination, strict=True))


def _cell(study: StudyFile, document: Mapping[str, Any], levels: Mapping[str, str]) -> StudyCell:
    recipe = _at(
        study, document, levels
    )  # its paths as they are written: hosts keep their files in folders of their own
    written = UNUSUAL.sub("_", "-".join(levels.values()))[:NAME_CHARACTERS]
    name = f"{written}-{_identity(recipe)[:IDENTITY_CHARACTERS]}"
    return StudyCell(name, levels, _placed(study, recipe), _candidates(study, document, levels))


def _candidates(
    study: StudyFile, document: Mapping[str, Any], levels: Mapping[str, str]
) -> tuple[TuningCandidate, ...]:
    if study.tune is None:
        return ()
    first = dict(levels) | study.tune.at
    if study.compare is not None:
        replicates = study.compare.replicates
        first[replicates] = next(iter(changes_of(replicates, study.factors[replicates])))
    grid = changes_of(study.tune.key, study.tune.levels)
    return tuple(
        TuningCandidate(
            level,
            _placed(study, _at(study, document, first, change)),
            _placed(study, _at(study, document, levels, change)),
        )
        for level, change in grid.items()
    )


def _at(
    study: StudyFile,
    document: Mapping[str, Any],
    levels: Mapping[str, str],
    more: Mapping[str, Any] | None = None,
) -> Recipe:
    changed = deepcopy(dict(document))
    for factor, level in levels.items():
        changed = _merged(changed, changes_of(factor, study.factors[factor])[level])
    return _recipe(study, _merged(changed, more or {}), levels)


def _merged(document: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the document with `section.key` set to each change's value."""
    merged = deepcopy(dict(document))
    for key, value in changes.items():
        section, parts = merged, key.split(".")
        for part in parts[:-1]:
            inner = section.get(part)
            section[part] = dict(inner) if isinstance(inner, Mapping) else {}
            section = section[part]
        section[parts[-1]] = value
    return merged


def _recipe(study: StudyFile, document: Mapping[str, Any], levels: Mapping[str, str]) -> Recipe:
    try:
        return Recipe.model_validate(document)
    except ValidationError as error:
        complaint = first_complaint(Recipe, error)
        raise InputError(f"{study.recipe} at {_levels_text(levels)}: {complaint}") from None


def _placed(study: StudyFile, recipe: Recipe) -> Recipe:
    """Returns the recipe with its paths taken from the folder that the study's recipe lies in."""
    return with_paths_from(recipe, study.recipe.parent)


def _require_keys(study: StudyFile) -> None:
    """Raises InputError for a key that no recipe has, or that no figure depends on."""
    known = recipe_keys()
    keys = [
        key
        for factor, levels in study.factors.items()
        for change in changes_of(factor, levels).values()
        for key in change
    ]
    keys += [study.tune.key] if study.tune is not None else []
    for key in keys:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            wanted = f"did you mean `{near[0]}`?" if near else "the recipe's reference lists all keys."
            raise InputError(f"The factor `{key}` is no key of a recipe; {wanted}")
        if key in WITHOUT_EFFECT:
            raise InputError(f"The factor `{key}` makes no difference to any figure of a study; remove it.")


def recipe_keys() -> list[str]:
    """Returns every key of a model's recipe and every section, with a dot between the levels."""
    return list(_keys(Recipe, ""))


def _keys(section: Any, prefix: str) -> Iterator[str]:
    from edgewright.validation import subsection

    for name in section.model_fields:
        yield f"{prefix}{name}"
        if (inner := subsection(section, name)) is not None:
            yield from _keys(inner, f"{prefix}{name}.")


def _identity(recipe: Recipe) -> str:
    return digest_of(recipe.model_dump(mode="json", exclude=set(WITHOUT_EFFECT), exclude_defaults=True))


def _levels_text(levels: Mapping[str, str]) -> str:
    return ", ".join(f"{factor} {level}" for factor, level in levels.items())
