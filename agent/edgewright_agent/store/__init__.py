"""The board's store: content-addressed blobs, and the releases built from them."""

from edgewright_agent.store.blob import Blob, ChunkRange, Missing, WriteStatus
from edgewright_agent.store.delta import Delta, Stretch, apply_delta, check_delta
from edgewright_agent.store.direct import ChunkBuffer
from edgewright_agent.store.files import FileSystem, write_durably
from edgewright_agent.store.garbage import Garbage
from edgewright_agent.store.releases import StagedRelease
from edgewright_agent.store.scrub import Scrubbed, ScrubStoppedError, scrub
from edgewright_agent.store.space import Space
from edgewright_agent.store.state_file import StateFile
from edgewright_agent.store.store import Store
from edgewright_agent.store.upload import Upload

__all__ = [
    "Blob",
    "ChunkBuffer",
    "ChunkRange",
    "Delta",
    "FileSystem",
    "Garbage",
    "Missing",
    "ScrubStoppedError",
    "Scrubbed",
    "Space",
    "StagedRelease",
    "StateFile",
    "Store",
    "Stretch",
    "Upload",
    "WriteStatus",
    "apply_delta",
    "check_delta",
    "scrub",
    "write_durably",
]
