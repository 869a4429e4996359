"""What an artifact says of itself.

An artifact is a folder: the files the manifest lists, `manifest.json`, and `manifest.sig` (a DSSE envelope
over the manifest's bytes). Its identity is the SHA-256 of `manifest.json`, so the manifest holds no clock
time, host name or path: the same inputs give the same artifact.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from itertools import takewhile
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from edgewright.errors import InputError
from edgewright.v1.common_pb2 import Reason

CHUNK_BYTES_MAX = 4 * 1024 * 1024
MANIFEST_BYTES_MAX = 8 * 1024 * 1024
FILES_MAX = 10_000
MIRRORS_MAX = 8
TEMPORARY_PREFIX = ".tmp-"  # what the store calls its own half-made files, and clears when it starts


def _safe_path(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not re.fullmatch(r"[A-Za-z0-9._/-]{1,200}", path) or not parts or path != "/".join(parts):
        raise ValueError(f"path {path!r} is not plain: use letters, digits, '.', '_', '-' and single '/'")
    if ".." in parts or parts[0] == "/":
        raise ValueError(f"path {path!r} leaves the artifact")
    if any(part.startswith(TEMPORARY_PREFIX) for part in parts):
        raise ValueError(
            f"path {path!r} has a name that begins with {TEMPORARY_PREFIX!r}: rename it, boards clear those"
        )
    return path


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
SafePath = Annotated[str, AfterValidator(_safe_path)]


# On no processor did a token's lead fall further than this below the lower one of int8 and float32 on the host
# (benchmarks/near_ties.py; docs/decisions/0005).
NEAR_TIE_NATS = 1.0


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


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

    kind: Literal["onnxruntime-genai", "llama.cpp", "tensorrt-edge-llm", "vllm", "fake"]
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
    # A board where a new prompt of the golden one's length takes longer does not keep the release; None: no limit.
    ttft_seconds_max: Annotated[float, Field(gt=0)] | None = None
    tpot_seconds_max: Annotated[float, Field(gt=0)] | None = None


class PerformancePrediction(_Frozen):
    """What one request that decodes alone should reach. A board that misses it says so and keeps the release."""

    tokens_per_second: Annotated[float, Field(gt=0)] | None = None  # at least
    joules_per_token: Annotated[float, Field(gt=0)] | None = None  # at most
    predicted_by: str  # a model, or a measurement on another board


class MemoryPrediction(_Frozen):
    """h(m̂) of the plan: the engine's predicted peak in bytes, and what the prediction rests on.

    `budget_bytes` is the budget the artifact was built for. No board enforces it: a board compares the prediction,
    and later the measured peak, with its own budget.
    """

    budget_bytes: Annotated[int, Field(gt=0)]
    predicted_peak_bytes: Annotated[int, Field(gt=0)]
    error_bytes: Annotated[int, Field(ge=0)]  # half-width of the prediction's interval
    calibrated_on: str

    @property
    def bound_bytes(self) -> int:
        """Returns the upper end of the prediction's interval: predicted peak plus error."""
        return self.predicted_peak_bytes + self.error_bytes


class GoldenPrompt(_Frozen):
    """A greedy completion that a healthy board must reproduce, as the host's engine produced it.

    Up to the first near tie, that is: processors and versions of an engine round differently, or compute in float32
    what others do in int8, and a token that was hardly ahead of the runner-up on the host may be behind it here.
    """

    prompt: str
    tokens: tuple[int, ...]
    # Of each token over the runner-up, in nats, where its arithmetic is least sure of it; empty: all must be the same.
    leads: tuple[float, ...] = ()

    def same_tokens(self, tokens: Sequence[int]) -> int:
        """Returns how many tokens are the host's before the first that is not."""
        pairs = zip(tokens, self.tokens, strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

    def accepts(self, tokens: Sequence[int]) -> bool:
        """Whether a healthy board may answer so: as the host did, or otherwise from a near tie on."""
        same = self.same_tokens(tokens)
        return same == len(self.tokens) or self.is_near_tie(same)

    def is_near_tie(self, index: int) -> bool:
        """Whether another token than the host's may be right, too."""
        return index < len(self.leads) and self.leads[index] < NEAR_TIE_NATS


class Accuracy(_Frozen):
    """A measured accuracy of one model of the lineage on one task."""

    task: str
    model: str  # teacher, student, finetuned, quantized, exported; of an adapter: base, adapter
    accuracy: Annotated[float, Field(ge=0, le=1)]
    standard_error: Annotated[float, Field(ge=0)]
    rows: Annotated[int, Field(gt=0)]


class AdapterSlots(_Frozen):
    """Which LoRA adapters this model's graph takes."""

    modules: Annotated[tuple[str, ...], Field(min_length=1)]  # every layer's projections of these names
    rank: Annotated[int, Field(gt=0)]  # the highest


class AdapterSpec(_Frozen):
    """This artifact is a LoRA adapter: the engine of its base serves it, so that release must be on the board."""

    base: Sha256  # the base's identity: the SHA-256 of its manifest
    path: SafePath  # of the adapter, one of the files
    modules: Annotated[tuple[str, ...], Field(min_length=1)]
    rank: Annotated[int, Field(gt=0)]


class Mirror(_Frozen):
    """Where a board can fetch this artifact's files by their digest; what it gets is verified all the same."""

    # oci-layout: the folder of an OCI image layout on any web server. oci-registry: the URL ends in /v2/<name>.
    layout: Literal["oci-layout", "oci-registry"]
    url: Annotated[str, Field(max_length=500, pattern=r"^https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~%-]+)*$")]

    def blob_url(self, sha256: str) -> str:
        """Returns the address of a file with this digest."""
        return f"{self.url}/blobs/sha256{'/' if self.layout == 'oci-layout' else ':'}{sha256}"


class Manifest(_Frozen):
    """The whole of `manifest.json`."""

    schema_version: Literal["edgewright.manifest.v1"] = "edgewright.manifest.v1"
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,49}$")]
    release_counter: Annotated[int, Field(ge=1, le=10**18)] = 1
    device_profiles: Annotated[tuple[str, ...], Field(min_length=1)]  # ids this may be served on
    engine: EngineSpec
    model: ModelSpec
    limits: Limits
    memory: MemoryPrediction
    performance: PerformancePrediction | None = None
    golden: GoldenPrompt | None = None
    accuracy: tuple[Accuracy, ...] = ()
    adapter: AdapterSpec | None = None
    adapter_slots: AdapterSlots | None = None
    lineage: dict[str, Any] = Field(default_factory=dict)  # base, teachers, data, recipe, hyperparameters
    mirrors: Annotated[tuple[Mirror, ...], Field(max_length=MIRRORS_MAX)] = ()  # tried in this order
    files: Annotated[tuple[File, ...], Field(min_length=1, max_length=FILES_MAX)]

    @model_validator(mode="after")
    def _paths_are_unique(self) -> Manifest:
        paths = [file.path for file in self.files]
        if len(set(paths)) != len(paths):
            raise ValueError("two files have the same path")
        return self

    @model_validator(mode="after")
    def _adapter_is_a_file(self) -> Manifest:
        if self.adapter is not None and self.adapter.path not in {file.path for file in self.files}:
            raise ValueError(f"the adapter {self.adapter.path} is not one of the files")
        if self.adapter is not None and self.adapter_slots is not None:
            raise ValueError("an adapter has no slots for adapters")
        return self

    @property
    def kind(self) -> Literal["model", "adapter"]:
        """Returns whether this is a model of its own or an adapter of another release's."""
        return "model" if self.adapter is None else "adapter"

    @property
    def base(self) -> str | None:
        """Returns the release whose model an adapter adapts; None for a model."""
        return None if self.adapter is None else self.adapter.base

    @property
    def size_bytes(self) -> int:
        """Returns the bytes of all files."""
        return sum(file.size_bytes for file in self.files)

    def to_bytes(self) -> bytes:
        """Returns the canonical `manifest.json`: sorted keys, two blanks, one newline at the end."""
        text = json.dumps(self.model_dump(mode="json"), indent=2, sort_keys=True, ensure_ascii=False)
        return (text + "\n").encode()


def parse_manifest(data: bytes) -> Manifest:
    """Returns the manifest in `data`; raises InputError (`MANIFEST_INVALID`) that names the first wrong field."""
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
    """Returns the artifact's identity: SHA-256 of the manifest's bytes, in hex."""
    return hashlib.sha256(data).hexdigest()
