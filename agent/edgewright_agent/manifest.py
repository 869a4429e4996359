"""What an artifact says of itself.

An artifact is a folder: the files the manifest lists, `manifest.json`, and `manifest.sig` (a DSSE envelope
over the manifest's bytes). Its identity is the SHA-256 of `manifest.json`, so the manifest holds no clock
time, host name or path: the same inputs give the same artifact.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from edgewright.v1.common_pb2 import Reason
from edgewright_agent.errors import InputError

CHUNK_BYTES_MAX = 4 * 1024 * 1024
MANIFEST_BYTES_MAX = 8 * 1024 * 1024
FILES_MAX = 10_000


def _safe_path(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not re.fullmatch(r"[A-Za-z0-9._/-]{1,200}", path) or not parts or path != "/".join(parts):
        raise ValueError(f"path {path!r} is not plain: use letters, digits, '.', '_', '-' and single '/'")
    if ".." in parts or parts[0] == "/":
        raise ValueError(f"path {path!r} leaves the artifact")
    return path


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
SafePath = Annotated[str, AfterValidator(_safe_path)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Chunk(_Frozen):
    """A stretch of a file, verified on arrival."""

    sha256: Sha256
    size_bytes: Annotated[int, Field(gt=0, le=CHUNK_BYTES_MAX)]


class File(_Frozen):
    """One file of the artifact. Its chunks in order, concatenated, are the file."""

    path: SafePath
    sha256: Sha256
    size_bytes: Annotated[int, Field(ge=0)]
    chunks: tuple[Chunk, ...]

    @model_validator(mode="after")
    def _chunks_are_the_file(self) -> File:
        total = sum(chunk.size_bytes for chunk in self.chunks)
        if total != self.size_bytes:
            raise ValueError(f"{self.path}: chunks hold {total} bytes, the file {self.size_bytes}")
        return self


class EngineSpec(_Frozen):
    """Which engine serves this artifact and where its files are."""

    kind: Literal["onnxruntime-genai", "vllm", "fake"]
    version: str = ""  # the engine's version it was exported for
    folder: SafePath = "engine"


class ModelSpec(_Frozen):
    """Facts of the model that the board needs."""

    architecture: str
    parameters: Annotated[int, Field(gt=0)]
    layers: Annotated[int, Field(gt=0)]
    hidden_size: Annotated[int, Field(gt=0)]
    vocab_size: Annotated[int, Field(gt=0)]
    tied_embeddings: bool
    weight_bits: int
    embedding_bits: int
    group_size: int


class Limits(_Frozen):
    """What the plan allows at once; the prediction below holds for these."""

    context_tokens: Annotated[int, Field(gt=0)]
    concurrency: Annotated[int, Field(gt=0)] = 1


class MemoryPrediction(_Frozen):
    """h(m̂) of the plan: the engine's predicted peak, and what it rests on."""

    budget_bytes: Annotated[int, Field(gt=0)]
    predicted_peak_bytes: Annotated[int, Field(gt=0)]
    error_bytes: Annotated[int, Field(ge=0)]  # half-width of the interval
    calibrated_on: str


class GoldenPrompt(_Frozen):
    """A greedy completion that a healthy board must reproduce, as the host's engine produced it."""

    prompt: str
    tokens: tuple[int, ...]


class Accuracy(_Frozen):
    """A measured accuracy of one model of the lineage on one task."""

    task: str
    model: str  # teacher, student, finetuned, quantized, exported
    accuracy: Annotated[float, Field(ge=0, le=1)]
    standard_error: Annotated[float, Field(ge=0)]
    rows: Annotated[int, Field(gt=0)]


class Manifest(_Frozen):
    """The whole of `manifest.json`."""

    schema_version: Literal["edgewright.manifest.v1"] = "edgewright.manifest.v1"
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,49}$")]
    release_counter: Annotated[int, Field(ge=1)] = 1
    device_profiles: Annotated[tuple[str, ...], Field(min_length=1)]  # ids this may be served on
    engine: EngineSpec
    model: ModelSpec
    limits: Limits
    memory: MemoryPrediction
    golden: GoldenPrompt | None = None
    accuracy: tuple[Accuracy, ...] = ()
    lineage: dict[str, Any] = Field(default_factory=dict)  # base, teachers, data, recipe, hyperparameters
    files: Annotated[tuple[File, ...], Field(min_length=1, max_length=FILES_MAX)]

    @model_validator(mode="after")
    def _paths_are_unique(self) -> Manifest:
        paths = [file.path for file in self.files]
        if len(set(paths)) != len(paths):
            raise ValueError("two files have the same path")
        return self

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.size_bytes for file in self.files)

    def to_bytes(self) -> bytes:
        """The canonical `manifest.json`: sorted keys, two blanks, one newline at the end."""
        text = json.dumps(self.model_dump(mode="json"), indent=2, sort_keys=True, ensure_ascii=False)
        return (text + "\n").encode()


def parse_manifest(data: bytes) -> Manifest:
    """The manifest in `data`; raises InputError (`MANIFEST_INVALID`) that names the first wrong field."""
    if len(data) > MANIFEST_BYTES_MAX:
        raise InputError(
            f"The manifest has {len(data)} bytes; at most {MANIFEST_BYTES_MAX} are accepted.",
            Reason.REASON_MANIFEST_INVALID,
        )
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the document"
        message = f"The manifest is invalid at {where}: {first['msg']}."
        raise InputError(message, Reason.REASON_MANIFEST_INVALID) from None


def manifest_digest(data: bytes) -> str:
    """The artifact's identity: SHA-256 of the manifest's bytes, in hex."""
    return hashlib.sha256(data).hexdigest()
