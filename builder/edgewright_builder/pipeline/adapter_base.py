"""The base of an adapter: a finished run. Its artifact is on boards; its 4-bit checkpoint is what is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgewright.errors import InputError
from edgewright.manifest import AdapterSlots
from edgewright_builder.artifact.artifact import MANIFEST_NAME, Artifact, verify_artifact
from edgewright_builder.run.resumable_run import shipped_checkpoint, unfinished_stage


@dataclass(frozen=True)
class Base:
    """What the base's run left."""

    artifact: Artifact
    slots: AdapterSlots
    checkpoint: Path  # GPTQ: the frozen weights
    unquantized: Path  # what they were rounded from


def find_base(source: Path) -> Base:
    """Returns the base in `source`, a run's folder or the artifact in it.

    Raises InputError if it is neither, was not finished, was altered, or takes no adapters.
    """
    run = source.resolve().parent if (source / MANIFEST_NAME).is_file() else source
    checkpoint = shipped_checkpoint(run)
    if not (run / "artifact" / MANIFEST_NAME).is_file() or not (checkpoint / "config.json").is_file():
        raise InputError(
            f"`base` is {source}, which is no finished run: expected an artifact and beside it quantize/model, the "
            "4-bit checkpoint that the adapter is trained on. Name the folder of a build, or go on with it by --resume."
        )
    if (stage := unfinished_stage(run)) is not None:
        raise InputError(
            f"`base` is {source}, whose build was stopped in its stage {stage}: its artifact may be older than the "
            "4-bit checkpoint that the adapter would be trained on. Go on with that build by --resume first."
        )
    artifact = verify_artifact(run / "artifact", None)
    slots = artifact.manifest.adapter_slots
    if slots is None:
        raise InputError(
            f"{artifact.manifest.name} {artifact.manifest.version} takes no adapters: build it with "
            "`serving: {adapters: {rank: 8}}` in its recipe, and push it before its adapters."
        )
    return Base(artifact, slots, checkpoint, run / "finetune" / "model")


def require_slots(slots: AdapterSlots, modules: Sequence[str], rank: int) -> None:
    """Raises InputError unless the base takes an adapter of these modules and this rank."""
    if strange := sorted(set(modules) - set(slots.modules)):
        raise InputError(
            f"`adapter.modules` has {strange[0]}; the base takes adapters of {', '.join(slots.modules)}. "
            "Remove it, or build the base with it in `serving.adapters.modules`."
        )
    if rank > slots.rank:
        raise InputError(
            f"`adapter.rank` is {rank}; the base takes adapters up to rank {slots.rank}. Lower it, or build the base "
            "with a higher `serving.adapters.rank`."
        )
