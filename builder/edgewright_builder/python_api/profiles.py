"""Device profiles: what each board is, every figure with its source."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgewright_builder.python_api.arguments import device_profile
from edgewright_profiles import DeviceProfile, list_profiles, load_profile

if TYPE_CHECKING:
    from edgewright_builder.device_client.profile_draft import ProfileDraft


def profiles() -> tuple[DeviceProfile, ...]:
    """Returns the built-in profiles, and this machine's as `this-host`."""
    return tuple(load_profile(profile) for profile in list_profiles())


def profile(device: str | Path | DeviceProfile) -> DeviceProfile:
    """Returns the profile of an id, an alias or a YAML file. Raises InputError."""
    return device_profile(device)


def draft_profile() -> ProfileDraft:
    """Returns a profile of this machine, memory and bandwidth measured; `Board.draft_profile` drafts one of a board."""
    from edgewright_builder.device_client.profile_draft import draft_here

    return draft_here()
