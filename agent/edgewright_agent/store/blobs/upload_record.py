"""The record `<sha256>.meta` of an upload: which chunks have reached the disk, with a checksum."""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

from edgewright.durable import read_regular
from edgewright_agent.store.blobs.blob import ChunkRange


@dataclass(frozen=True)
class PartialMeta:
    """The record of one upload."""

    chunking: str
    size_bytes: int
    durable_bytes: int
    durable: tuple[ChunkRange, ...]

    def to_bytes(self) -> bytes:
        """Returns the file's content."""
        body = json.dumps(asdict(self), sort_keys=True)
        return json.dumps({"crc32": zlib.crc32(body.encode()), "body": body}).encode()


def read_meta(path: Path) -> PartialMeta | None:
    """Returns the record of an upload; None if there is none that is whole."""
    try:
        envelope = json.loads(read_regular(path))
        if zlib.crc32(envelope["body"].encode()) != envelope["crc32"]:
            return None
        fields = json.loads(envelope["body"])
        durable = tuple(ChunkRange(**span) for span in fields.pop("durable"))
        return PartialMeta(**fields, durable=durable)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
