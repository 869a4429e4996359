"""The diff command: what differs between two artifacts, and what sending the second costs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from edgewright.errors import InputError
from edgewright.sizes import format_bytes
from edgewright.v1.deployment_pb2 import Release
from edgewright_builder.artifact.artifact import Artifact, open_artifact
from edgewright_builder.artifact.diff import Comparison, compare
from edgewright_builder.cli.connection import connect, console, emit, run
from edgewright_builder.cli.options import AsJson, Credentials, Insecure, Save
from edgewright_builder.device.releases import release_named
from edgewright_builder.push import pushed_before
from edgewright_builder.show import display

FIELDS_SHOWN = 40

_Which = typer.Argument(
    help="A folder, HOST:PORT for what it serves, or HOST:PORT/DIGEST for a release there.",
    show_default=False,
)


def diff(
    old: Annotated[str, _Which],
    new: Annotated[str, _Which],
    credentials: Credentials = None,
    insecure: Insecure = False,
    as_json: AsJson = False,
    save: Save = None,
) -> None:
    """Show what differs between two artifacts: manifest, accuracy, files, tensors, bytes a push would send."""
    comparison = compare(*(artifact_of(which, credentials, insecure) for which in (old, new)))
    emit(document(comparison), as_json=as_json, save=save)
    if not as_json:
        print_comparison(console(), comparison)


def artifact_of(which: str, credentials: Path | None, insecure: bool) -> Artifact:
    """The artifact in a folder, or this machine's copy of a release on a board. Raises InputError."""
    if Path(which).is_dir():
        return open_artifact(Path(which))
    host, _, digest = which.partition("/")
    if ":" not in host:
        raise InputError(f"{which} is neither an artifact's folder nor HOST:PORT with an optional /DIGEST.")

    async def work() -> list[Release]:
        async with connect(host, credentials, insecure) as client:
            return await client.list_releases()

    wanted = release_named(run(work()), digest, host).release.hex()
    found = pushed_before.find([wanted], [])
    if found is None:
        raise InputError(
            f"Release {wanted[:12]} of {host} is not on this machine: only artifacts pushed from here are kept. "
            "Give its folder instead."
        )
    return found


def document(comparison: Comparison) -> dict[str, Any]:
    """For scripts."""
    return dataclasses.asdict(comparison)


def print_comparison(out: Console, comparison: Comparison) -> None:
    """For people; tables only where something differs."""
    out.print(f"{comparison.old[:12]} → {comparison.new[:12]}")
    if comparison.old == comparison.new:
        out.print("They are the same artifact.")
        return
    fields = [(field.name, _shown(field.old), _shown(field.new)) for field in comparison.fields]
    if fields:
        display.table(out, ("manifest", "old", "new"), fields[:FIELDS_SHOWN])
        if len(fields) > FIELDS_SHOWN:
            out.print(f"and {len(fields) - FIELDS_SHOWN} fields more; --json has them all")
    if comparison.accuracy:
        display.table(out, ("task", "model", "old", "new", "difference"), [
            (s.task, s.model, f"{s.old:.3f}", f"{s.new:.3f}", f"{s.difference:+.3f} ± {s.standard_error:.3f}")
            for s in comparison.accuracy
        ])  # fmt: skip
    if comparison.files:
        display.table(out, ("file", "old", "new", "chunks to send"), [
            (f.path, _size(f.old_bytes), _size(f.new_bytes), format_bytes(f.missing_bytes))
            for f in comparison.files
        ])  # fmt: skip
    for line in summary_lines(comparison):
        out.print(line, markup=False)


def summary_lines(comparison: Comparison) -> list[str]:
    """Tensors and bytes in words."""
    tensors, transfer = comparison.tensors, comparison.transfer
    lines = [
        f"tensors: {tensors.changed} changed, {tensors.same} the same, {tensors.added} new, {tensors.removed} gone"
    ]
    if tensors.changed_bytes:
        share = tensors.differing_bytes / tensors.changed_bytes
        lines.append(f"  in the changed ones {share:.1%} of {format_bytes(tensors.changed_bytes)} differ")
    whole = transfer.artifact_bytes
    for name, size in (("as chunks", transfer.plain_bytes), ("as a delta", transfer.delta_bytes)):
        lines.append(
            f"a push sends {format_bytes(size)} {name}, {size / max(1, whole):.1%} of {format_bytes(whole)}"
        )
    return lines


def _size(size_bytes: int | None) -> str:
    return "none" if size_bytes is None else format_bytes(size_bytes)


def _shown(value: Any) -> str:
    text = "none" if value is None else " ".join(str(value).split())
    return text if len(text) <= 48 else f"{text[:45]}…"
