"""Releases on a board: naming one by the beginning of its digest, and deleting those that nothing needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgewright.errors import InputError
from edgewright.v1.deployment_pb2 import Release, ReleaseState
from edgewright_builder.device.client import DeviceClient

KEPT_STATES = (
    ReleaseState.RELEASE_STATE_ACTIVE,
    ReleaseState.RELEASE_STATE_PREVIOUS,
    ReleaseState.RELEASE_STATE_CANDIDATE,
)


@dataclass(frozen=True)
class Deleted:
    """A release that was deleted, or would be."""

    release: Release
    freed_bytes: int | None  # None: nothing was deleted; files that others share free nothing


def release_named(releases: Sequence[Release], digest: str, host: str) -> Release:
    """The one release whose digest begins with `digest`; the active one if that is empty. Raises InputError."""
    active = ReleaseState.RELEASE_STATE_ACTIVE
    named = [
        release
        for release in releases
        if (release.release.hex().startswith(digest) if digest else release.state == active)
    ]
    if len(named) != 1:
        what = f"releases whose digest begins with {digest}" if digest else "active releases"
        raise InputError(f"{host} has {len(named)} {what}; see `edgewright releases {host}`.")
    return named[0]


def unneeded(releases: Sequence[Release]) -> list[Release]:
    """All but those in use and the bases these need; adapters first, for the board keeps a base that has one."""
    in_use = [release for release in releases if release.state in KEPT_STATES]
    kept = {release.release for release in in_use} | {release.base_release for release in in_use}
    return sorted(
        (release for release in releases if release.release not in kept),
        key=lambda release: not release.base_release,
    )


async def delete_releases(
    client: DeviceClient, releases: Sequence[Release], *, dry_run: bool = False
) -> list[Deleted]:
    """Deletes them in this order. Raises what the board says against one; those before it are gone then."""
    return [
        Deleted(release, None if dry_run else await client.delete_release(release.release))
        for release in releases
    ]
