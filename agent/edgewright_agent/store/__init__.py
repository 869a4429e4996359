"""The board's store: content-addressed blobs, and the releases built from them."""

from edgewright_agent.store.blob import Blob, ChunkRange, Missing, WriteStatus
from edgewright_agent.store.files import FileSystem, write_durably
from edgewright_agent.store.releases import StagedRelease
from edgewright_agent.store.state_file import StateFile
from edgewright_agent.store.store import Space, Store
from edgewright_agent.store.upload import Upload

__all__ = [
    "Blob",
    "ChunkRange",
    "FileSystem",
    "Missing",
    "Space",
    "StagedRelease",
    "StateFile",
    "Store",
    "Upload",
    "WriteStatus",
    "write_durably",
]
