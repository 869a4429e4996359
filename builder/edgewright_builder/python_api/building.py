"""A recipe becomes a signed artifact."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgewright.durable import FileSystem, write_durably
from edgewright.errors import InputError
from edgewright.sizes import format_bytes
from edgewright_builder.keys.key_files import load_signing_key
from edgewright_builder.python_api.arguments import as_path, budget_of, credentials_folder, device_profile
from edgewright_builder.python_api.libraries import own_errors
from edgewright_builder.python_api.reporter import listening_reporter
from edgewright_builder.python_api.results.progress import OnProgress
from edgewright_builder.python_api.run_folder import RunFolder
from edgewright_builder.recipe.adapter_recipe import AdapterRecipe, load_any_recipe
from edgewright_builder.recipe.model_recipe import Recipe
from edgewright_builder.run.folder_owner import claimed, refuse_used
from edgewright_builder.run.library_output import quiet_libraries
from edgewright_builder.run.progress import Reporter
from edgewright_profiles import DeviceProfile

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from edgewright_builder.pipeline.adapter_pipeline import AdapterBuild
    from edgewright_builder.run.build_definition import Build

RUNS = Path("runs")
KEYS = Path("keys")


@dataclass(frozen=True)
class BuildOrder:
    """What is to be built: from what, for what, and where. `budget_bytes` None: it follows from the recipe."""

    recipe_file: Path
    settings: Recipe | AdapterRecipe
    profile: DeviceProfile
    budget_bytes: int | None
    out: Path
    signing_key: Ed25519PrivateKey
    resume: bool


def build(
    recipe: str | Path,
    *,
    device: str | Path | DeviceProfile,
    budget: str | int | None = None,
    out: str | Path | None = None,
    credentials: str | Path | None = None,
    benchmarks: str | Path | None = None,
    tasks: str | None = None,
    limit: int | None = None,
    resume: bool = True,
    on_progress: OnProgress | None = None,
) -> RunFolder:
    """Builds a signed artifact, a model or where the recipe names a `base` an adapter, and returns the run.

    Args:
        recipe: The recipe, a YAML file.
        device: A device profile's id, alias or file.
        budget: The most memory it may take, such as "260MiB" or bytes; None: the profile's, an adapter's base's.
        out: The run's folder; None: `runs/RECIPE-DEVICE` here.
        credentials: The folder with release.key; None: the one EDGEWRIGHT_CREDENTIALS names, or `keys` here.
        benchmarks: A folder of TASK/eval.jsonl, instead of the recipe's.
        tasks: Names with commas between, or paths of .jsonl files, instead of the recipe's.
        limit: Evaluates the first rows of each task only.
        resume: Goes on in a folder that holds a run already; stages that are done for the same inputs are kept.
        on_progress: Hears how far it is; `print` will do.

    Raises:
        InputError: A recipe, device, budget or key is wrong, or a library is not installed.
        RefusedError: Nothing fits, or the folder is not to be used.
        OutsideError: A disk, a download or a child process failed.
    """
    order = make_order(recipe, device, budget, out, credentials, benchmarks, tasks, limit, resume=resume)
    with listening_reporter(on_progress) as reporter:
        return run_order(order, reporter)


def make_order(
    recipe: str | Path,
    device: str | Path | DeviceProfile,
    budget: str | int | None,
    out: str | Path | None,
    credentials: str | Path | None,
    benchmarks: str | Path | None,
    tasks: str | None,
    limit: int | None,
    *,
    resume: bool,
) -> BuildOrder:
    """Returns the order, everything that was given checked and read. Raises InputError."""
    file = as_path(recipe, "the recipe")
    settings = _with_evaluation(load_any_recipe(file), benchmarks, tasks, limit)
    profile = device_profile(device)
    folder = RUNS / f"{file.stem}-{profile.id}" if out is None else as_path(out, "the run's folder")
    budget_bytes = budget_of(profile, budget)
    return BuildOrder(file, settings, profile, budget_bytes, folder, _signing_key(credentials), resume)


def run_order(order: BuildOrder, reporter: Reporter) -> RunFolder:
    """Builds what was ordered. Raises as `build`."""
    refuse_used(order.out, resume=order.resume)
    quiet_libraries()
    with own_errors():
        if isinstance(order.settings, AdapterRecipe):
            _build_adapter(order, order.settings, reporter)
        else:
            _build_model(order, order.settings, reporter)
    return RunFolder(order.out)


def _build_model(order: BuildOrder, recipe: Recipe, reporter: Reporter) -> None:
    """A model of its own; without a budget of its own it has the profile's."""
    from edgewright_builder.pipeline.model_pipeline import build_model
    from edgewright_builder.pipeline.preflight import preflight
    from edgewright_builder.run.build_definition import Build
    from edgewright_builder.run.resumable_run import Run

    budget_bytes = order.budget_bytes or order.profile.budget_bytes()
    job = Build(recipe, order.profile, budget_bytes, Run(order.out, reporter), order.signing_key)
    preflight(job)
    with _begun(order, reporter, _model_line(job)):
        package = build_model(job)
    _say(
        reporter,
        f"Artifact {package.summary['artifact'][:12]} in {order.out / 'artifact'}: "
        f"{format_bytes(package.summary['size_bytes'])}, "
        f"{package.summary['times_smaller_than_bf16']:.2f} times smaller than the 16-bit student",
    )


def _build_adapter(order: BuildOrder, recipe: AdapterRecipe, reporter: Reporter) -> None:
    """The adapter of a base; without a budget of its own it has the base's."""
    from edgewright_builder.pipeline.adapter_base import find_base
    from edgewright_builder.pipeline.adapter_pipeline import AdapterBuild, build_adapter, preflight_adapter
    from edgewright_builder.run.resumable_run import Run

    base = find_base(recipe.base)
    budget_bytes = order.budget_bytes or base.artifact.manifest.memory.budget_bytes
    run = Run(order.out, reporter)
    job = AdapterBuild(recipe, base, order.profile, budget_bytes, run, order.signing_key)
    preflight_adapter(job)
    with _begun(order, reporter, _adapter_line(job)):
        package = build_adapter(job)
    summary = package.summary
    _say(
        reporter,
        f"Adapter {summary['artifact'][:12]} in {order.out / 'artifact'}: {format_bytes(summary['size_bytes'])}, "
        f"{summary['fraction_of_base']:.1%} of its base",
    )
    for line in RunFolder(order.out).accuracy_lines():
        _say(reporter, line)


def _model_line(job: Build) -> str:
    """Returns what is to be made, and what it will take."""
    plan = job.plan
    return (
        f"{job.recipe.name} for {job.profile.name}: {plan.configuration.layers} of {plan.layers_full} layers, "
        f"{plan.configuration.embedding_bits}-bit embeddings, predicted peak "
        f"{format_bytes(plan.memory.peak_bytes)} ± {format_bytes(plan.error_bytes)} "
        f"of a budget of {format_bytes(job.budget_bytes)}"
    )


def _adapter_line(job: AdapterBuild) -> str:
    base, adapter = job.base.artifact, job.recipe.adapter
    return (
        f"{job.recipe.name} for {job.profile.name}: a rank-{adapter.rank} adapter of {', '.join(job.modules)} on "
        f"{base.manifest.name} {base.manifest.version} ({base.digest[:12]}, {format_bytes(base.manifest.size_bytes)})"
    )


def _say(reporter: Reporter, line: str) -> None:
    reporter.console.print(line, markup=False, soft_wrap=True, highlight=False)


@contextmanager
def _begun(order: BuildOrder, reporter: Reporter, opening_line: str) -> Iterator[None]:
    """The run's folder is this build's own, and says what it was made from."""
    _say(reporter, opening_line)
    with claimed(order.out, resume=order.resume):
        write_durably(FileSystem(), order.out / "recipe.yaml", order.recipe_file.read_bytes())
        yield


def _with_evaluation(
    recipe: Recipe | AdapterRecipe, benchmarks: str | Path | None, tasks: str | None, limit: int | None
) -> Recipe | AdapterRecipe:
    """Returns the recipe with what the caller says of its evaluation."""
    update: dict[str, object] = {}
    if benchmarks is not None:
        update["benchmarks"] = as_path(benchmarks, "benchmarks").resolve()
    if tasks is not None:
        names = [task.strip() for task in tasks.split(",")]
        update["tasks"] = tuple(
            str(Path(name).resolve()) if name.endswith(".jsonl") else name for name in names
        )
    if limit is not None:
        update["limit"] = limit
    return recipe.model_copy(update={"evaluate": recipe.evaluate.model_copy(update=update)})


def _signing_key(credentials: str | Path | None) -> Ed25519PrivateKey:
    folder = credentials_folder(credentials)
    if folder is None and (KEYS / "release.key").is_file():
        folder = KEYS
    if folder is None:
        raise InputError(
            "An artifact must be signed: make a key with `edgewright keys create DIR`, "
            "then give --credentials DIR or set EDGEWRIGHT_CREDENTIALS."
        )
    return load_signing_key(folder / "release.key")
