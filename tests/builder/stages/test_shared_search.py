"""The search by several processes, which share its trials on one Optuna storage."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import ValidationError
from rich.console import Console

from edgewright.errors import OutsideError, RefusedError
from edgewright_builder.pipeline.preflight import preflight
from edgewright_builder.recipe.model_recipe import Recipe, SearchSettings, load_recipe
from edgewright_builder.run.build_definition import Build
from edgewright_builder.run.optuna_storage import journal_url
from edgewright_builder.run.progress import Reporter
from edgewright_builder.run.resumable_run import FinishedStage, Run
from edgewright_builder.stages.data import run_data
from edgewright_builder.stages.search import read_best, run_search
from edgewright_builder.stages.student import run_student
from edgewright_builder.stages.teacher import run_teacher
from edgewright_builder.train.loop import DivergedError
from edgewright_profiles import load_profile
from tests.support.postgresql import postgresql_server
from tests.support.tiny_build import environment, write_inputs

TRIALS = 6
SPACE = {"lora_rank": [8, 32]}  # holds the starting points


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return load_recipe(write_inputs(tmp_path_factory.mktemp("inputs")))


@pytest.fixture(scope="module")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with postgresql_server(tmp_path_factory.mktemp("pg")) as address:
        yield address


@pytest.fixture(params=["journal", "postgresql"])
def storage(request: pytest.FixtureRequest) -> str | None:
    return None if request.param == "journal" else request.getfixturevalue("postgresql")


def searched(recipe: Recipe, folder: Path, **search: Any) -> tuple[Build, dict[str, FinishedStage]]:
    """The stages up to the search, in a run of its own."""
    settings = recipe.search.model_validate({"trials": TRIALS, "startup_trials": 2, "space": SPACE} | search)
    run = Run(folder, Reporter(Console(file=io.StringIO())))
    own = recipe.model_copy(update={"search": settings})
    build = Build(own, load_profile("this-host"), 2**30, run, Ed25519PrivateKey.generate())
    data = run_data(build.distillation)
    student = run_student(build, data)
    teacher = run_teacher(build.distillation, data)
    search_stage = run_search(build, data, student, teacher)
    return build, {"data": data, "student": student, "teacher": teacher, "search": search_stage}


def trials_in(stage: FinishedStage) -> list[dict[str, Any]]:
    trials: list[dict[str, Any]] = json.loads((stage.folder / "trials.json").read_text(encoding="utf-8"))
    return trials


@pytest.mark.timeout(600)
def test_workers_share_the_trials_and_the_best_is_kept(
    recipe: Recipe, storage: str | None, tmp_path: Path
) -> None:
    name = recipe.model_copy(update={"name": f"tiny-{tmp_path.name[:40].replace('_', '-')}"})
    build, stages = searched(name, tmp_path / "run", workers=3, storage=storage)
    trials = trials_in(stages["search"])
    assert [trial["state"] for trial in trials] == ["complete"] * TRIALS
    assert [trial["params"]["optimizer"] for trial in trials[:2]] == ["adam", "muon"]  # the starting points
    # Workers of one seed would try the same. Of their own seeds, two that ask at the same moment may meet in a corner.
    assert len({json.dumps(trial["params"], sort_keys=True) for trial in trials}) >= TRIALS - 1
    assert stages["search"].summary["best"] == min(trial["value"] for trial in trials)
    best = min(trials, key=lambda trial: trial["value"])["params"]
    assert read_best(stages["search"]).hyperparameters.learning_rate == best["learning_rate"]
    again = run_search(build, stages["data"], stages["student"], stages["teacher"])
    assert (again.output_digest, trials_in(again)) == (stages["search"].output_digest, trials)


@pytest.mark.timeout(600)
def test_a_host_that_joins_finds_what_others_have_done(recipe: Recipe, tmp_path: Path) -> None:
    shared = journal_url(tmp_path / "shared.journal")
    _, first = searched(recipe, tmp_path / "one", storage=shared)
    _, second = searched(recipe, tmp_path / "two", storage=shared)
    assert trials_in(first["search"]) == trials_in(second["search"])
    assert len(trials_in(second["search"])) == TRIALS


@pytest.mark.timeout(600)
def test_a_host_that_compares_the_vocabularies_otherwise_searches_alone(
    recipe: Recipe, tmp_path: Path
) -> None:
    shared, settings = journal_url(tmp_path / "shared.journal"), recipe.distillation
    otherwise = settings.model_copy(update={"alignment": "projected"})
    _, first = searched(recipe, tmp_path / "one", trials=2, storage=shared)
    other = recipe.model_copy(update={"distillation": otherwise})
    _, second = searched(other, tmp_path / "two", trials=2, storage=shared)
    values = [trial["value"] for stages in (first, second) for trial in trials_in(stages["search"])]
    assert len(set(values)) == len(values)


def test_trials_that_diverge_are_said_and_not_tried_again(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[object] = []

    def diverge(choice: object, *_: object) -> float:
        tried.append(choice)
        raise DivergedError("The loss is nan.")

    monkeypatch.setattr("edgewright_builder.stages.shared_search.trained_value", diverge)
    storage = journal_url(tmp_path / "journal")
    for _ in range(2):
        with pytest.raises(RefusedError, match="Every trial diverged"):
            searched(recipe, tmp_path / "run", storage=storage, trials=3)
    trials = json.loads((tmp_path / "run" / "search" / "trials.json").read_text(encoding="utf-8"))
    assert [trial["state"] for trial in trials] == ["diverged"] * 3
    assert len(tried) == 3


def test_a_worker_says_in_one_sentence_what_is_wrong(recipe: Recipe, tmp_path: Path) -> None:
    job = {
        "recipe": recipe.model_dump(mode="json"), "run": str(tmp_path), "data": str(tmp_path), "student": "",
        "teacher": "", "group_sizes": [32], "storage": journal_url(tmp_path / "j"), "name": "s",
    }  # fmt: skip
    (tmp_path / "job.json").write_text(json.dumps(job), encoding="utf-8")
    command = [sys.executable, "-m", "edgewright_builder.stages.search_worker", str(tmp_path / "job.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 2
    assert "holds no finished stage" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_storages_address_reaches_no_artifact_and_makes_no_other_search(recipe: Recipe) -> None:
    shared = recipe.search.model_copy(update={"storage": "postgresql://my-host/d", "workers": 3})
    assert shared.deciding() == recipe.search.deciding()
    assert "my-host" not in json.dumps(recipe.model_copy(update={"search": shared}).portable())


def test_a_password_in_the_recipe_is_refused_before_it_lies_in_a_report() -> None:
    with pytest.raises(ValidationError, match=r"PGPASSWORD or ~/\.pgpass") as refused:
        SearchSettings.model_validate({"storage": "postgresql://user:secret@host/name"})
    assert "leave the password out" in str(refused.value)


def test_a_storage_that_can_not_be_reached_is_found_before_anything_is_built(
    recipe: Recipe, tmp_path: Path
) -> None:
    settings = recipe.search.model_copy(update={"storage": "postgresql://127.0.0.1:1/x"})
    run = Run(tmp_path / "run", Reporter(Console(file=io.StringIO())))
    own = recipe.model_copy(update={"search": settings})
    build = Build(own, load_profile("this-host"), 2**30, run, Ed25519PrivateKey.generate())
    with pytest.raises(OutsideError, match=r"The storage postgresql://127\.0\.0\.1:1/x can't be used"):
        preflight(build)
    assert not (tmp_path / "run" / "data").exists()


def test_optunas_own_tools_read_the_trials_of_a_shared_search(recipe: Recipe, tmp_path: Path) -> None:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    _, stages = searched(recipe, tmp_path / "run", workers=1, storage=journal_url(tmp_path / "j"), trials=3)
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "j")))
    (summary,) = optuna.get_all_study_summaries(storage)
    assert summary.study_name.startswith("search-tiny-")
    study = optuna.load_study(study_name=summary.study_name, storage=storage)
    assert study.best_value == stages["search"].summary["best"]
