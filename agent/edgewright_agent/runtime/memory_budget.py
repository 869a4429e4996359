"""How much memory a release may take on this board."""

from __future__ import annotations

from edgewright_profiles import DeviceProfile


def memory_budget_bytes(profile: DeviceProfile, chosen_bytes: int | None) -> int:
    """Returns what a release may take at its peak: the budget chosen with `--budget`, else the profile's."""
    return profile.budget_bytes() if chosen_bytes is None else chosen_bytes
