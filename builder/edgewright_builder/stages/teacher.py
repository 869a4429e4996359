"""Stage 3, teacher: T2 is run once; its final hidden states stay on disk.

Exact logits at any temperature are one matmul with T2's output head away, in about 1/50 of the space of full logits.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from edgewright.durable import write_json
from edgewright.errors import InputError, OutsideError
from edgewright_builder.models import load_model
from edgewright_builder.train.distill import counted_hidden, output_head
from edgewright_builder.train.samples import Sample, collate, make_batches

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def cache_teacher(
    teacher: Path,
    samples: Sequence[Sample],
    batch_tokens: int,
    pad_token: int,
    folder: Path,
    on_progress: Callable[[int, int, str], None],
) -> dict[str, Any]:
    """Writes `hidden.bin`, `index.json` and `head.safetensors`; goes on where a killed attempt stopped.

    `hidden.bin` holds, batch after batch and sample after sample, the (counted tokens, hidden) states in T2's dtype.
    """
    model = load_model(teacher)
    head = output_head(model)
    batches = make_batches(samples, range(len(samples)), batch_tokens, seed=None)
    order = [index for batch in batches for index in batch]
    row_bytes = head.shape[1] * head.element_size()
    save_file({"head": head.contiguous().clone()}, folder / "head.safetensors")
    index = {"dtype": str(head.dtype).removeprefix("torch."), "hidden_size": head.shape[1], "order": order}
    write_json(folder / "index.json", index)
    _append_batches(model, samples, batches, pad_token, row_bytes, folder / "hidden.bin", on_progress)
    tokens = sum(sample.counted_tokens for sample in samples)
    return {"samples": len(samples), "tokens": tokens, "cache_bytes": tokens * row_bytes}


@torch.inference_mode()
def _append_batches(
    model: torch.nn.Module,
    samples: Sequence[Sample],
    batches: Sequence[Sequence[int]],
    pad_token: int,
    row_bytes: int,
    path: Path,
    on_progress: Callable[[int, int, str], None],
) -> None:
    total = sum(sample.counted_tokens for sample in samples)
    done, started = 0, time.monotonic()
    present_bytes = path.stat().st_size if path.exists() else 0
    device = next(model.parameters()).device
    with path.open("r+b" if path.exists() else "w+b") as file:
        for indices in batches:
            tokens = sum(samples[index].counted_tokens for index in indices)
            if (done + tokens) * row_bytes <= present_bytes:  # whole in the killed attempt
                done += tokens
                continue
            file.seek(done * row_bytes)
            hidden = counted_hidden(model, collate(samples, indices, pad_token, device))
            file.write(hidden.cpu().contiguous().view(torch.uint8).numpy().tobytes())
            file.flush()
            os.fsync(file.fileno())
            done += tokens
            on_progress(done, total, f"tokens, {done / (time.monotonic() - started):.0f} tok/s")
        file.truncate(total * row_bytes)


def read_teacher(folder: Path, samples: Sequence[Sample]) -> tuple[Callable[[int], Tensor], Tensor]:
    """(sample index → its (counted tokens, hidden) states, the output head), mapped from disk.

    Raises OutsideError where the cache does not hold these samples.
    """
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    dtype, hidden_size = DTYPES[index["dtype"]], index["hidden_size"]
    tokens = sum(sample.counted_tokens for sample in samples)
    if sorted(index["order"]) != list(range(len(samples))):
        raise InputError(
            f"{folder} caches {len(index['order'])} samples, {len(samples)} are asked for; delete it."
        )
    path = folder / "hidden.bin"
    expected_bytes = tokens * hidden_size * dtype.itemsize
    if path.stat().st_size != expected_bytes:
        raise OutsideError(
            f"{path} has {path.stat().st_size} bytes instead of {expected_bytes}; delete {folder}."
        )
    rows = torch.from_file(str(path), shared=False, size=tokens * hidden_size, dtype=dtype).view(
        tokens, hidden_size
    )
    starts, position = {}, 0
    for sample_index in index["order"]:
        starts[sample_index] = position
        position += samples[sample_index].counted_tokens

    def hidden_of(sample_index: int) -> Tensor:
        start = starts[sample_index]
        return rows[start : start + samples[sample_index].counted_tokens]

    head = load_file(folder / "head.safetensors")["head"]
    return hidden_of, head.to("cuda" if torch.cuda.is_available() else "cpu")
