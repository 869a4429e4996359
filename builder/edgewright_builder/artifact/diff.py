"""What differs between two artifacts: manifest, accuracy, files, tensors, and what a push would send."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edgewright.chunk_delta import xor
from edgewright.manifest import Accuracy, File, Manifest
from edgewright_builder.artifact.artifact import Artifact
from edgewright_builder.artifact.delta_encoding import DeltaMaker, tensors_of
from edgewright_builder.artifact.diff_tables import comparison_sheet
from edgewright_builder.artifact.tensors import TensorPlace
from edgewright_builder.show.sheet import Sheet, shown

_PIECE_BYTES = 1024 * 1024


@dataclass(frozen=True)
class FieldChange:
    """A field of the manifest by its dotted path, with both values; None where there is none."""

    name: str
    old: Any
    new: Any


@dataclass(frozen=True)
class AccuracyChange:
    """A model's accuracy on a task in both artifacts. The rows may differ, so the errors are those of two samples."""

    task: str
    model: str
    old: float
    new: float
    standard_error: float  # of the difference

    @property
    def difference(self) -> float:
        """The new value less the old one."""
        return self.new - self.old


@dataclass(frozen=True)
class FileChange:
    """A file that is not the same in both; a size is None where the file is not there."""

    path: str
    old_bytes: int | None
    new_bytes: int | None
    missing_bytes: int  # of chunks that the old artifact has nowhere


@dataclass(frozen=True)
class TensorChanges:
    """The new artifact's tensors against the old one's of the same name."""

    same: int
    changed: int
    added: int  # or of another size
    removed: int
    changed_bytes: int  # size of those that changed
    differing_bytes: int  # bytes in them that differ


@dataclass(frozen=True)
class TransferBytes:
    """What a push sends to a board that has the old artifact."""

    artifact_bytes: int
    plain_bytes: int  # missing chunks as they are
    delta_bytes: int


@shown
@dataclass(frozen=True)
class Comparison:
    """Everything that differs."""

    old: str
    new: str
    fields: tuple[FieldChange, ...]
    accuracy: tuple[AccuracyChange, ...]
    files: tuple[FileChange, ...]
    tensors: TensorChanges
    transfer: TransferBytes

    def _sheet(self) -> Sheet:
        return comparison_sheet(self)


def compare(old: Artifact, new: Artifact) -> Comparison:
    """Compares two artifacts on this disk, old first."""
    return Comparison(
        old.digest,
        new.digest,
        tuple(changed_fields(old.manifest, new.manifest)),
        tuple(changed_accuracy(old.manifest, new.manifest)),
        tuple(changed_files(old.manifest, new.manifest)),
        compare_tensors(old, new),
        transfer_of(old, new),
    )


def changed_fields(old: Manifest, new: Manifest) -> Iterator[FieldChange]:
    """Fields that differ, by their dotted path. Files and accuracy have reports of their own."""
    before, after = (
        dict(_leaves(m.model_dump(mode="json", exclude={"files", "accuracy"}))) for m in (old, new)
    )
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            yield FieldChange(name, before.get(name), after.get(name))


def changed_accuracy(old: Manifest, new: Manifest) -> Iterator[AccuracyChange]:
    """Accuracies that both artifacts report, in the new one's order."""
    before: dict[tuple[str, str], Accuracy] = {(row.task, row.model): row for row in old.accuracy}
    for row in new.accuracy:
        if (was := before.get((row.task, row.model))) is not None:
            error = math.hypot(was.standard_error, row.standard_error)
            yield AccuracyChange(row.task, row.model, was.accuracy, row.accuracy, error)


def changed_files(old: Manifest, new: Manifest) -> Iterator[FileChange]:
    """Files that are added, removed or other, by path."""
    before, after = ({file.path: file for file in manifest.files} for manifest in (old, new))
    have = _chunks_of(old)
    for path in sorted(before.keys() | after.keys()):
        was, now = before.get(path), after.get(path)
        if was is None or now is None or was.sha256 != now.sha256:
            missing = 0 if now is None else sum(c.size_bytes for c in now.chunks if c.sha256 not in have)
            yield FileChange(path, _size(was), _size(now), missing)


def compare_tensors(old: Artifact, new: Artifact) -> TensorChanges:
    """Tensor by tensor, by name."""
    before, after = tensors_of(old), tensors_of(new)
    same = changed = added = changed_bytes = differing_bytes = 0
    for name, (file, place) in after.items():
        was = before.get(name)
        if was is None or was[1].size_bytes != place.size_bytes:
            added += 1
            continue
        differing = _differing_bytes(old, *was, new, file, place)
        same, changed = same + (differing == 0), changed + (differing > 0)
        changed_bytes += place.size_bytes if differing else 0
        differing_bytes += differing
    removed = len(before.keys() - after.keys())
    return TensorChanges(same, changed, added, removed, changed_bytes, differing_bytes)


def transfer_of(old: Artifact, new: Artifact) -> TransferBytes:
    """Returns what a push would send, without and with a delta."""
    have, maker = _chunks_of(old.manifest), DeltaMaker(new, old)
    plain_bytes = delta_bytes = 0
    for file in {file.sha256: file for file in new.manifest.files}.values():
        for index, chunk in enumerate(file.chunks):
            if chunk.sha256 not in have:
                frame = maker.frame(file, index)
                plain_bytes += chunk.size_bytes
                delta_bytes += chunk.size_bytes if frame is None else len(frame.data)
    return TransferBytes(new.manifest.size_bytes, plain_bytes, delta_bytes)


def _size(file: File | None) -> int | None:
    return None if file is None else file.size_bytes


def _chunks_of(manifest: Manifest) -> set[str]:
    return {chunk.sha256 for file in manifest.files for chunk in file.chunks}


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def _differing_bytes(
    old: Artifact, old_file: File, old_place: TensorPlace, new: Artifact, file: File, place: TensorPlace
) -> int:
    differing = 0
    with old.path(old_file).open("rb") as before, new.path(file).open("rb") as after:
        before.seek(old_place.offset_bytes)
        after.seek(place.offset_bytes)
        for first in range(0, place.size_bytes, _PIECE_BYTES):
            count = min(_PIECE_BYTES, place.size_bytes - first)
            was, now = before.read(count), after.read(count)
            if was != now:
                differing += count - xor(was, now).count(0)
    return differing
