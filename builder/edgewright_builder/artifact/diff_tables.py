"""A comparison of two artifacts as people read it: tables only where something differs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgewright.sizes import format_bytes
from edgewright_builder.show.sheet import Grid, Lines, Sheet

if TYPE_CHECKING:
    from edgewright_builder.artifact.diff import Comparison

FIELDS_SHOWN = 40


def comparison_sheet(comparison: Comparison) -> Sheet:
    """Returns manifest, accuracy, files, tensors and bytes; of two that are one artifact a sentence."""
    parts: list[Grid | Lines] = [Lines([f"{comparison.old[:12]} → {comparison.new[:12]}"])]
    if comparison.old == comparison.new:
        return Sheet((*parts, Lines(["They are the same artifact."])))
    fields = [(field.name, _shown(field.old), _shown(field.new)) for field in comparison.fields]
    if fields:
        parts.append(Grid(("manifest", "old", "new"), fields[:FIELDS_SHOWN]))
    if len(fields) > FIELDS_SHOWN:
        parts.append(Lines([f"and {len(fields) - FIELDS_SHOWN} fields more; --json has them all"]))
    if comparison.accuracy:
        rows = [
            (s.task, s.model, f"{s.old:.3f}", f"{s.new:.3f}", f"{s.difference:+.3f} ± {s.standard_error:.3f}")
            for s in comparison.accuracy
        ]
        parts.append(Grid(("task", "model", "old", "new", "difference"), rows))
    if comparison.files:
        files = [
            (f.path, _size(f.old_bytes), _size(f.new_bytes), format_bytes(f.missing_bytes))
            for f in comparison.files
        ]
        parts.append(Grid(("file", "old", "new", "chunks to send"), files))
    return Sheet((*parts, Lines(summary_lines(comparison))))


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
