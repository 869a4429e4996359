"""Blobs from an HTTP mirror or an OCI registry that a signed manifest names.

`http` gets a stretch of one blob within bounds, `fetch` brings what is missing into the store.
"""

from edgewright_agent.mirror.fetch import Progress, fetch_missing
from edgewright_agent.mirror.http import Limits, MirrorError

__all__ = ["Limits", "MirrorError", "Progress", "fetch_missing"]
