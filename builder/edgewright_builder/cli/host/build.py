"""`edgewright build`: makes a signed artifact from a recipe."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.console import Console

from edgewright.durable import FileSystem, write_durably
from edgewright.errors import InputError
from edgewright.sizes import format_bytes, parse_bytes
from edgewright_builder.cli.options import Credentials
from edgewright_builder.keys.key_files import load_signing_key
from edgewright_builder.recipe.adapter import AdapterRecipe, load_any_recipe
from edgewright_builder.recipe.model import Recipe
from edgewright_builder.run.folder import claimed, refuse_used
from edgewright_profiles import DeviceProfile, load_profile

if TYPE_CHECKING:
    from edgewright_builder.run.build import Build

RecipeFile = Annotated[Path, typer.Argument(help="The recipe, a YAML file.", show_default=False)]
Device = Annotated[str, typer.Option(help="A device profile's id or file.", show_default=False)]
Out = Annotated[Path, typer.Option("--out", "-o", help="The run's folder.", show_default=False)]
Budget = Annotated[
    str | None, typer.Option(help="Most memory the model may take, like 180MiB; default: the profile's.")
]
Benchmarks = Annotated[
    Path | None,
    typer.Option(help="Folder of TASK/eval.jsonl; overrides the recipe's.", show_default=False),
]
Tasks = Annotated[
    str | None,
    typer.Option(help="Names with commas between, or paths of .jsonl files; overrides the recipe's."),
]
Limit = Annotated[int | None, typer.Option(min=1, help="Use the first N rows of each task.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on in a run folder that exists.")]


@contextmanager
def _stoppable() -> Iterator[None]:
    """Ctrl-C ends the build with a sentence and exit code 130."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("edgewright: Stopped. Run the same command again with --resume to go on.", err=True)
        raise typer.Exit(130) from None


@_stoppable()
def build(
    recipe: RecipeFile,
    device: Device,
    out: Out,
    credentials: Credentials = None,
    budget: Budget = None,
    benchmarks: Benchmarks = None,
    tasks: Tasks = None,
    limit: Limit = None,
    resume: Resume = False,
) -> None:
    """Build a signed artifact: a model, or an adapter where the recipe names a `base`."""
    settings = _with_evaluation(load_any_recipe(recipe), benchmarks, tasks, limit)
    profile = load_profile(device)
    budget_bytes = parse_bytes(budget) if budget else None
    order = _Order(recipe, profile, budget_bytes, out, resume, _signing_key(credentials))
    refuse_used(out, resume=resume)
    _quiet_libraries()
    if isinstance(settings, AdapterRecipe):
        _build_adapter(order, settings)
    else:
        _build_model(order, settings)


@dataclass(frozen=True)
class _Order:
    """What is wanted, whatever the recipe makes."""

    recipe_file: Path
    profile: DeviceProfile
    budget_bytes: int | None  # None: it follows from the recipe
    out: Path
    resume: bool
    signing_key: Ed25519PrivateKey
    console: Console = field(default_factory=lambda: Console(highlight=False))

    @contextmanager
    def begun(self, opening_line: str) -> Iterator[None]:
        """The run's folder is this build's own, and says what it was made from."""
        self.console.print(opening_line, markup=False, soft_wrap=True)
        with claimed(self.out, resume=self.resume):
            write_durably(FileSystem(), self.out / "recipe.yaml", self.recipe_file.read_bytes())
            yield


def _build_model(order: _Order, recipe: Recipe) -> None:
    """A model of its own; without a budget of its own it has the profile's."""
    from edgewright_builder.pipeline.model import build_model
    from edgewright_builder.pipeline.preflight import preflight
    from edgewright_builder.run.build import Build
    from edgewright_builder.run.progress import Reporter
    from edgewright_builder.run.run import Run

    budget_bytes = order.budget_bytes or order.profile.budget_bytes()
    run = Run(order.out, Reporter(order.console))
    job = Build(recipe, order.profile, budget_bytes, run, order.signing_key)
    preflight(job)
    with order.begun(_opening_line(job)):
        package = build_model(job)
    order.console.print(
        f"Artifact {package.summary['artifact'][:12]} in {order.out / 'artifact'}: "
        f"{format_bytes(package.summary['size_bytes'])}, "
        f"{package.summary['times_smaller_than_bf16']:.2f} times smaller than the 16-bit student",
        markup=False,
        soft_wrap=True,
    )


def _opening_line(job: Build) -> str:
    """What is to be made, and what it will take."""
    plan = job.plan
    return (
        f"{job.recipe.name} for {job.profile.name}: {plan.configuration.layers} of {plan.layers_full} layers, "
        f"{plan.configuration.embedding_bits}-bit embeddings, predicted peak "
        f"{format_bytes(plan.memory.peak_bytes)} ± {format_bytes(plan.error_bytes)} "
        f"of a budget of {format_bytes(job.budget_bytes)}"
    )


def _build_adapter(order: _Order, recipe: AdapterRecipe) -> None:
    """The adapter of a base; without a budget of its own it has the base's."""
    from edgewright_builder.cli.host.adapter import opening_line, print_result
    from edgewright_builder.pipeline.adapter import AdapterBuild, build_adapter, preflight_adapter
    from edgewright_builder.pipeline.adapter_base import find_base
    from edgewright_builder.run.progress import Reporter
    from edgewright_builder.run.run import Run

    base = find_base(recipe.base)
    budget_bytes = order.budget_bytes or base.artifact.manifest.memory.budget_bytes
    run = Run(order.out, Reporter(order.console))
    job = AdapterBuild(recipe, base, order.profile, budget_bytes, run, order.signing_key)
    preflight_adapter(job)
    with order.begun(opening_line(job)):
        package = build_adapter(job)
    print_result(order.console, package, order.out)


def _with_evaluation(
    recipe: Recipe | AdapterRecipe, benchmarks: Path | None, tasks: str | None, limit: int | None
) -> Recipe | AdapterRecipe:
    """The recipe with what the command line says of its evaluation."""
    update: dict[str, object] = {}
    if benchmarks is not None:
        update["benchmarks"] = benchmarks.resolve()
    if tasks is not None:
        names = [task.strip() for task in tasks.split(",")]
        update["tasks"] = tuple(
            str(Path(name).resolve()) if name.endswith(".jsonl") else name for name in names
        )
    if limit is not None:
        update["limit"] = limit
    return recipe.model_copy(update={"evaluate": recipe.evaluate.model_copy(update=update)})


def _signing_key(credentials: Path | None) -> Ed25519PrivateKey:
    if credentials is None:
        raise InputError(
            "An artifact must be signed: make a key with `edgewright keys create DIR`, "
            "then give --credentials DIR or set EDGEWRIGHT_CREDENTIALS."
        )
    return load_signing_key(credentials / "release.key")


def _quiet_libraries() -> None:
    """Progress is ours to show: the libraries' bars and notices stay out of it."""
    os.environ.setdefault("TORCHAO_FORCE_SKIP_LOADING_SO_FILES", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for message in (".*is experimental", ".*an experimental feature", ".*is_gradient_checkpointing"):
        warnings.filterwarnings("ignore", message=message)
    for name in ("torch.utils._pytree", "torchao"):  # warn of each other's registrations
        # A filter, as torch sets the levels of its loggers anew when it is imported.
        logging.getLogger(name).addFilter(lambda record: record.levelno >= logging.ERROR)
