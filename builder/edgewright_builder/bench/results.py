"""The result of `edgewright bench`: where it was measured, every repeat, and the host's view; as a file and back.

    {"measured": BenchSubject, "result": the typical repeat, "runs": [every repeat], "host": …, "link_seconds": …}

Repeats and the host's view are `edgewright.v1.BenchmarkResult`, `link_seconds` is `edgewright.v1.Distribution`, in
protobuf's JSON form.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from pydantic import TypeAdapter, ValidationError

from edgewright.errors import InputError
from edgewright.v1.telemetry_pb2 import BenchmarkResult, Distribution


@dataclass(frozen=True)
class BenchSubject:
    """What was measured, and where. Empty or None: not known."""

    where: str  # HOST:PORT, or this machine
    device: str = ""  # its profile
    model: str = ""
    release: str = ""  # SHA-256 of the manifest, in hex; before quantization: of what was made of the model
    precision: str = ""  # 4-bit weights, float32
    engine: str = ""
    budget_bytes: int | None = None
    weights_16bit_bytes: int | None = None  # what the same model's weights take at 16 bits
    power_mode: str | None = None
    clocks_hertz: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Bench:
    """The results of at least one run, and the host's view if it was asked for."""

    subject: BenchSubject
    runs: tuple[BenchmarkResult, ...]
    host: BenchmarkResult | None = None
    link_seconds: Distribution | None = None  # TTFT seen here less TTFT in the agent, request by request

    @property
    def title(self) -> str:
        """What was measured, in one line."""
        parts = (self.subject.model, self.subject.precision, self.subject.where)
        return ", ".join(part for part in parts if part) or "earlier result"

    @property
    def typical(self) -> BenchmarkResult:
        """The run of median throughput (the lower one of two in the middle)."""
        ordered = sorted(self.runs, key=lambda run: run.generated_tokens_per_second)
        return ordered[(len(ordered) - 1) // 2]


def bench_from_json(document: Mapping[str, Any]) -> Bench:
    """Reads the document back. Raises ValueError if the document is no bench's."""
    runs = document.get("runs") or [document["result"]]
    host, link = document.get("host"), document.get("link_seconds")
    return Bench(
        TypeAdapter(BenchSubject).validate_python(document.get("measured") or {"where": ""}),
        tuple(_parsed(run, BenchmarkResult()) for run in runs),
        None if host is None else _parsed(host, BenchmarkResult()),
        None if link is None else _parsed(link, Distribution()),
    )


def read_bench(path: Path) -> Bench:
    """Returns what `edgewright bench --save` wrote. Raises InputError."""
    try:
        return bench_from_json(json.loads(path.read_bytes()))
    except OSError as error:
        raise InputError(
            f"{path} can't be read ({error.strerror}); give a file that `bench --save` wrote."
        ) from None
    except (
        ValueError, KeyError, TypeError, AttributeError, RecursionError, ValidationError, json_format.ParseError
    ):  # fmt: skip
        raise InputError(f"{path} is not a result of `edgewright bench --save`.") from None


def _parsed(document: Any, message: Any) -> Any:
    if not isinstance(document, dict):
        raise ValueError("not a message")
    return json_format.ParseDict(document, message, ignore_unknown_fields=True)
