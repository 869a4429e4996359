"""Device profiles: what each board is, every figure with its source."""

from __future__ import annotations

from edgewright_profiles.loader import list_profiles, load_profile, names_file, parse_profile
from edgewright_profiles.schema import DeviceProfile, Figure

__all__ = ["DeviceProfile", "Figure", "list_profiles", "load_profile", "names_file", "parse_profile"]
