"""A served T2's top-k answers, on disk: written sample by sample, in whatever order they come."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np

from edgewright.durable import write_json
from edgewright.errors import InputError
from edgewright_builder.model_server.requests import run_to_the_end

if TYPE_CHECKING:
    from edgewright_builder.run.progress import OnProgress
    from edgewright_builder.teacher_cache.prompt_answers import Row
    from edgewright_builder.teacher_cache.prompt_scores import PromptScores
    from edgewright_builder.train.samples import Sample
    from edgewright_builder.train.top_k_losses import TopAnswers

PRODUCTS = ("tokens.bin", "log_probabilities.bin")
DONE = "answered.jsonl"  # the samples whose answers are whole, one index a line


def cache_answers(
    scores: PromptScores, samples: Sequence[Sample], concurrency: int, folder: Path, on_progress: OnProgress
) -> dict[str, Any]:
    """Writes the answers at the samples' counted tokens; asks only for samples that a killed attempt did not get.

    Raises as `PromptScores.score` does; what was answered until then stays.
    """
    store = _Store(folder, samples, scores.top_k)
    store.prepare()
    missing = [index for index in range(len(samples)) if index not in store.done()]
    if missing:
        run_to_the_end(_ask_all(scores, store, missing, concurrency, on_progress))
    return {
        "samples": len(samples),
        "tokens": store.tokens,
        "top_k": scores.top_k,
        "cache_bytes": store.size_bytes,
    }


async def _ask_all(
    scores: PromptScores, store: _Store, missing: Sequence[int], concurrency: int, on_progress: OnProgress
) -> None:
    gate, answered, started = asyncio.Semaphore(concurrency), 0, time.monotonic()

    async def ask(http: httpx.AsyncClient, index: int) -> None:
        nonlocal answered
        async with gate:
            rows = await scores.score(http, store.samples[index].tokens)
        store.put(index, rows)
        answered += 1
        rate = answered / (time.monotonic() - started)
        on_progress(
            len(store.samples) - len(missing) + answered, len(store.samples), f"samples, {rate:.1f}/s"
        )

    async with scores.open() as http:
        tasks = [asyncio.ensure_future(ask(http, index)) for index in missing]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()


@dataclass(frozen=True)
class _Store:
    """Two files of (counted tokens, k): token ids and log-probabilities, one sample after the other."""

    folder: Path
    samples: Sequence[Sample]
    top_k: int

    @property
    def tokens(self) -> int:
        """Counted tokens of all samples."""
        return sum(sample.counted_tokens for sample in self.samples)

    @property
    def size_bytes(self) -> int:
        """Of both files."""
        return self.tokens * self.top_k * 8

    @cached_property
    def _starts(self) -> list[int]:
        return starts_of(self.samples)

    def prepare(self) -> None:
        """Makes the files at their full size, unless a killed attempt did."""
        for name in PRODUCTS:
            path = self.folder / name
            if not path.exists() or path.stat().st_size != self.size_bytes // 2:
                path.write_bytes(b"")
                os.truncate(path, self.size_bytes // 2)
                (self.folder / DONE).unlink(missing_ok=True)
        write_json(self.folder / "index.json", {"top_k": self.top_k, "samples": len(self.samples)})

    def done(self) -> set[int]:
        """Returns the samples whose answers are whole; a line cut by a crash does not count."""
        path = self.folder / DONE
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        return {int(line) for line in lines if line.endswith(b"\n") and line.strip().isdigit()}

    def put(self, index: int, rows: Sequence[Row]) -> None:
        """Writes a sample's answers durably, then that it has them."""
        sample = self.samples[index]
        counted = rows[sample.first : len(sample.tokens) - 1]  # rows begin with the second token
        tokens = np.full((len(counted), self.top_k), -1, np.int32)
        values = np.full((len(counted), self.top_k), -np.inf, np.float32)
        for place, row in enumerate(counted):
            tokens[place, : len(row.tokens)] = row.tokens
            values[place, : len(row.tokens)] = row.log_probabilities
        start = self._starts[index] * self.top_k * 4
        for name, array in zip(PRODUCTS, (tokens, values), strict=True):
            with (self.folder / name).open("r+b") as file:
                file.seek(start)
                file.write(array.tobytes())
                file.flush()
                os.fsync(file.fileno())
        with (self.folder / DONE).open("ab") as file:
            file.write(f"{index}\n".encode())
            file.flush()
            os.fsync(file.fileno())


@dataclass(frozen=True)
class ReadAnswers:
    """The answers of every sample, mapped from disk."""

    tokens: np.ndarray[Any, np.dtype[np.int32]]  # (counted tokens, k)
    log_probabilities: np.ndarray[Any, np.dtype[np.float32]]
    starts: Sequence[int]  # of each sample, and the end of the last

    def of(self, index: int) -> TopAnswers:
        """Returns one sample's answers."""
        import torch

        from edgewright_builder.train.top_k_losses import TopAnswers

        rows = slice(self.starts[index], self.starts[index + 1])
        return TopAnswers(
            torch.from_numpy(self.tokens[rows].astype(np.int64)),
            torch.from_numpy(np.array(self.log_probabilities[rows])),
        )


def starts_of(samples: Sequence[Sample]) -> list[int]:
    """Returns the first counted token of each sample among all, and the end of the last."""
    return [0, *accumulate(sample.counted_tokens for sample in samples)]


def read_answers(folder: Path, samples: Sequence[Sample]) -> ReadAnswers:
    """Returns the answers to these samples. Raises InputError where the folder holds others."""
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    starts = starts_of(samples)
    shape, path = (starts[-1], index["top_k"]), folder / PRODUCTS[0]
    if index["samples"] != len(samples) or path.stat().st_size != shape[0] * shape[1] * 4:
        raise InputError(
            f"{folder} holds answers to {index['samples']} other samples, {len(samples)} are needed; delete {folder} "
            "and run again with --resume."
        )
    tokens = np.memmap(folder / PRODUCTS[0], np.int32, "r", shape=shape)
    values = np.memmap(folder / PRODUCTS[1], np.float32, "r", shape=shape)
    return ReadAnswers(tokens, values, starts)
