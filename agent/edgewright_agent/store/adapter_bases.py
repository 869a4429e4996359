"""Adapter releases and their bases. An adapter serves only on the release whose model it adapts."""

from __future__ import annotations

from collections.abc import Mapping

from edgewright.errors import RefusedError
from edgewright.manifest import AdapterSpec, Manifest
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.store.files.releases import StagedRelease


def servable(releases: Mapping[str, StagedRelease]) -> set[str]:
    """Returns the releases that have all they need here: an adapter also needs its base."""
    return {digest for digest, release in releases.items() if release.base in releases}


def adapters_on(base: str, releases: Mapping[str, StagedRelease]) -> list[str]:
    """Returns the adapter releases that need `base`."""
    return sorted(digest for digest, release in releases.items() if release.manifest.base == base)


def check_base(manifest: Manifest, releases: Mapping[str, StagedRelease]) -> None:
    """Raises RefusedError (`BASE_MISSING`, `ADAPTER_MISMATCH`) if an adapter can't be served with what is here."""
    adapter = manifest.adapter
    if adapter is None:
        return
    if adapter.base not in releases:
        message = f"The adapter needs its base, release {adapter.base}, which is not on this board. "
        message += _advice(manifest, adapter, releases)
        raise RefusedError(message, Reason.REASON_BASE_MISSING)
    why = _mismatch(manifest, adapter, releases[adapter.base].manifest)
    if why:
        message = f"Release {adapter.base[:12]} {why}. Build the adapter for this base, or push another base."
        raise RefusedError(message, Reason.REASON_ADAPTER_MISMATCH)


def check_unneeded(digest: str, releases: Mapping[str, StagedRelease]) -> None:
    """Raises RefusedError (`RELEASE_IN_USE`) if an adapter needs this release."""
    if needing := adapters_on(digest, releases):
        message = f"Release {digest[:12]} is the base of adapter {needing[0][:12]}; delete that one first."
        raise RefusedError(message, Reason.REASON_RELEASE_IN_USE)


def _advice(manifest: Manifest, adapter: AdapterSpec, releases: Mapping[str, StagedRelease]) -> str:
    """Returns what to do without the base. Another signature, such as for a mirror, makes of a base another release."""
    for digest, release in releases.items():
        other = release.manifest
        if other.model == manifest.model and _mismatch(manifest, adapter, other) is None:
            return (
                f"Push it first. If it became {other.name} {other.version}, {digest[:12]}, which is here, by "
                "`edgewright mirror add`, build the adapter again with --resume, which trains nothing anew."
            )
    return "Push it first."


def _mismatch(manifest: Manifest, adapter: AdapterSpec, base: Manifest) -> str | None:
    """Returns why this adapter can't be used on this base; None if it can."""
    slots = base.adapter_slots
    if slots is None:
        return "takes no adapters"
    if manifest.engine.kind != base.engine.kind:
        return f"is served by {base.engine.kind}, the adapter was made for {manifest.engine.kind}"
    if strange := sorted(set(adapter.modules) - set(slots.modules)):
        return f"takes adapters of {', '.join(slots.modules)}, this one has {strange[0]}"
    if adapter.rank > slots.rank:
        return f"takes adapters up to rank {slots.rank}, this one has {adapter.rank}"
    return None
