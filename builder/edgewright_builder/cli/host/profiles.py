"""`edgewright profiles list|show|detect`: the device profiles, and where their figures come from."""

from __future__ import annotations

from typing import Annotated, Any, TypedDict

import typer
import yaml

from edgewright.command_line import speaks_unicode
from edgewright.sizes import format_bytes
from edgewright_builder.cli.boards import open_board
from edgewright_builder.cli.given import refuse_without
from edgewright_builder.cli.options import AsJson, Credentials, Insecure
from edgewright_builder.cli.output import console, emit, json_text, stoppable
from edgewright_builder.show.document import document
from edgewright_builder.show.sheet import Facts, Grid, Sheet, print_sheet
from edgewright_profiles import DeviceProfile, Figure, list_profiles, load_profile

app = typer.Typer(
    help="Device profiles: what each board is, every figure with its source.",
    no_args_is_help=True,
    add_completion=False,
)


class ProfileSummary(TypedDict):
    """The facts of one profile in `profiles list`."""

    id: str
    name: str
    memory_seen_bytes: int
    carve_out_bytes: int
    budget_bytes: int
    budget_desktop_bytes: int
    bandwidth_bytes_per_second: float
    power_modes: list[str]
    engines: list[str]


class ProfilesDocument(TypedDict):
    """The built-in profiles."""

    profiles: list[ProfileSummary]


@app.command("list")
def list_command(as_json: AsJson = False) -> None:
    """List the built-in profiles with their budgets."""
    profiles = [load_profile(profile_id) for profile_id in list_profiles()]
    if as_json:
        emit("profiles", ProfilesDocument(profiles=[summary(profile) for profile in profiles]), as_json=True)
    else:
        print_sheet(console(), Sheet((profiles_grid(profiles),)))


@app.command("show")
def show_command(
    profile: Annotated[str, typer.Argument(help="A profile's id, alias or YAML file.")],
    as_json: AsJson = False,
) -> None:
    """Show one profile: every figure, its source and how far to trust it."""
    loaded = load_profile(profile)
    if as_json:
        typer.echo(json_text(document(loaded), indent=2))  # its schema_version names its schema
    else:
        print_sheet(console(), profile_sheet(loaded))


@app.command("detect")
@stoppable()
def detect_command(
    ctx: typer.Context,
    host: Annotated[
        str | None,
        typer.Argument(
            metavar="[HOST:PORT]", help="Where an agent listens. (default: this machine)", show_default=False
        ),
    ] = None,
    credentials: Credentials = None,
    insecure: Insecure = False,
) -> None:
    """Draft a profile from a live board: YAML to standard output, what only a datasheet tells to standard error."""
    from edgewright_builder.python_api.profiles import draft_profile

    if host is None:
        refuse_without(ctx, "HOST:PORT", "credentials", "insecure")
        draft = draft_profile()
    else:
        with open_board(host, credentials, insecure) as board:
            draft = board.draft_profile()
    typer.echo(yaml.safe_dump(draft.document, sort_keys=False, allow_unicode=speaks_unicode()), nl=False)
    typer.echo(f"nearest known profile: {draft.nearest.id} ({draft.why_nearest})", err=True)
    typer.echo(f"not found here, fill in from a datasheet: {', '.join(draft.missing)}", err=True)


def summary(profile: DeviceProfile) -> ProfileSummary:
    """Returns the facts of `profiles list`."""
    return {
        "id": profile.id,
        "name": profile.name,
        "memory_seen_bytes": profile.memory.seen_bytes.value,
        "carve_out_bytes": profile.carve_out_bytes,
        "budget_bytes": profile.budget_bytes(),
        "budget_desktop_bytes": profile.budget_bytes(desktop=True),
        "bandwidth_bytes_per_second": profile.bandwidth_bytes_per_second(),
        "power_modes": list(profile.power_mode_names),
        "engines": [engine.kind for engine in profile.engines if engine.supported.value],
    }


def profiles_grid(profiles: list[DeviceProfile]) -> Grid:
    """Returns one row for each profile."""
    rows = []
    for profile in profiles:
        facts = summary(profile)
        memory, budget = format_bytes(facts["memory_seen_bytes"]), format_bytes(facts["budget_bytes"])
        speed = f"{facts['bandwidth_bytes_per_second'] / 1e9:.1f}"
        rows.append((profile.id, memory, budget, speed, " ".join(facts["engines"])))
    return Grid(("profile", "memory", "budget", "GB/s", "engines"), rows)


def profile_sheet(profile: DeviceProfile) -> Sheet:
    """Returns what follows from the figures, then one row for each figure."""
    budgets = [
        ("budget", format_bytes(profile.budget_bytes())),
        ("budget with a desktop", format_bytes(profile.budget_bytes(desktop=True))),
        ("carve-outs (nominal - seen)", format_bytes(profile.carve_out_bytes)),
    ]
    rows = [
        (name, _value(name, figure.value), figure.confidence, figure.source)
        for name, figure in figures(profile)
    ]
    columns = ("figure", "value", "confidence", "source")
    return Sheet((Facts(profile.name, budgets), Grid(columns, rows)))


def figures(profile: DeviceProfile) -> list[tuple[str, Figure[Any]]]:
    """Returns every figure of the profile under a readable name, in the schema's order."""
    rows: list[tuple[str, Figure[Any]]] = [
        (f"memory.{name}", getattr(profile.memory, name)) for name in type(profile.memory).model_fields
    ]
    rows += [("cpu", profile.cpu), ("cpu_cores", profile.cpu_cores)]
    if profile.gpu is not None:
        rows.append(("gpu", profile.gpu.name))
        if profile.gpu.compute_capability is not None:
            rows.append(("gpu.compute_capability", profile.gpu.compute_capability))
    for mode in profile.power_modes:
        rows.append((f"bandwidth {mode.name}", mode.bandwidth_bytes_per_second))
        if mode.watts is not None:
            rows.append((f"watts {mode.name}", mode.watts))
    rows += [(f"sensor {sensor.kind}", sensor.rails) for sensor in profile.sensors]
    if profile.whole_module_rails is not None:
        rows.append(("whole module", profile.whole_module_rails))
    rows += [(f"engine {engine.kind}", engine.supported) for engine in profile.engines]
    rows += [(f"python of JetPack {jetpack.version}", jetpack.python) for jetpack in profile.jetpacks]
    return rows


def _value(name: str, value: Any) -> str:
    if name.startswith("memory."):
        return format_bytes(value)
    if name.startswith("bandwidth"):
        return f"{value / 1e9:.1f} GB/s"
    if isinstance(value, bool):
        return "runs" if value else "does not run"
    return " + ".join(value) if isinstance(value, tuple) else str(value)
