"""The board's store: content-addressed blobs, and the releases built from them."""

from edgewright.chunk_delta import Delta, Stretch, check_delta
from edgewright.durable import FileSystem, write_durably
from edgewright_agent.store.blobs.blob import Blob, ChunkRange, Missing, WriteStatus
from edgewright_agent.store.blobs.direct_io import ChunkBuffer
from edgewright_agent.store.blobs.upload import Upload
from edgewright_agent.store.delta_decoding import apply_delta
from edgewright_agent.store.files.releases import StagedRelease
from edgewright_agent.store.files.state_file import StateFile
from edgewright_agent.store.scrub import Scrubbed, ScrubStoppedError, scrub
from edgewright_agent.store.store import Store
from edgewright_agent.store.upkeep.garbage import Garbage
from edgewright_agent.store.upkeep.space import Space

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
