"""Fetches blobs from an HTTP mirror or an OCI registry that a signed manifest names.

`http` gets a range of one blob within bounds; `fetch` brings what is missing into the store.
"""

from edgewright_agent.mirror.fetch import FetchProgress, fetch_missing
from edgewright_agent.mirror.http import MirrorError, MirrorLimits

__all__ = ["FetchProgress", "MirrorError", "MirrorLimits", "fetch_missing"]
