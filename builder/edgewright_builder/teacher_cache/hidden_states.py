"""T2's final hidden states of the counted tokens, kept on disk.

Exact logits at any temperature are one matmul with T2's output head away, in about 1/50 of the space of full logits.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright.durable import write_json
from edgewright.errors import InputError, OutsideError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from edgewright_builder.run.progress import OnProgress
    from edgewright_builder.train.output_head import OutputHead
    from edgewright_builder.train.samples import Sample
    from edgewright_builder.train.teacher_knowledge import HiddenStates

PRODUCTS = ("hidden.bin", "head.safetensors")


def cache_hidden_states(
    teacher: Path,
    samples: Sequence[Sample],
    batch_tokens: int,
    pad_token: int,
    folder: Path,
    on_progress: OnProgress,
) -> dict[str, Any]:
    """Writes `hidden.bin`, `index.json` and `head.safetensors`; goes on where a killed attempt stopped.

    `hidden.bin` holds, batch after batch and sample after sample, the (counted tokens, hidden) states in T2's dtype.
    `head.safetensors` holds the head in 16 bits where they hold it exactly, as with every checkpoint of bfloat16.
    """
    import torch
    from safetensors.torch import save_file

    from edgewright_builder.models.folder import load_model
    from edgewright_builder.train.output_head import output_head
    from edgewright_builder.train.samples import make_batches

    model = load_model(teacher)
    head = output_head(model)
    weight = head.weight
    batches = make_batches(samples, range(len(samples)), batch_tokens, seed=None)
    softcap = {} if head.softcap is None else {"softcap": torch.tensor(head.softcap)}
    save_file({"head": _narrowed(weight), **softcap}, folder / "head.safetensors")
    index = {
        "dtype": str(weight.dtype).removeprefix("torch."),
        "hidden_size": weight.shape[1],
        "order": [index for batch in batches for index in batch],
    }
    write_json(folder / "index.json", index)
    cache = _Cache(folder / "hidden.bin", samples, batches, weight.shape[1] * weight.element_size())
    cache.complete(_states_of(model, samples, pad_token), on_progress)
    return {"samples": len(samples), "tokens": cache.tokens, "cache_bytes": cache.tokens * cache.row_bytes}


def _narrowed(weight: Tensor) -> Tensor:
    """Returns a copy in 16 bits if those hold every value, else as it is."""
    import torch

    for dtype in (torch.bfloat16, torch.float16):
        narrow = weight.to(dtype)
        if torch.equal(narrow.to(weight.dtype), weight):
            return narrow.contiguous().clone()
    return weight.contiguous().clone()


@dataclass(frozen=True)
class _Cache:
    """The file of hidden states: its samples in batches, each whole and durable before the next."""

    path: Path
    samples: Sequence[Sample]
    batches: Sequence[Sequence[int]]
    row_bytes: int  # of one token's state

    @property
    def tokens(self) -> int:
        """Counted tokens of all samples."""
        return sum(sample.counted_tokens for sample in self.samples)

    def complete(self, states_of: Callable[[Sequence[int]], bytes], on_progress: OnProgress) -> None:
        """Appends the batches that a killed attempt did not write whole."""
        done, started, total = 0, time.monotonic(), self.tokens
        present_bytes = self.path.stat().st_size if self.path.exists() else 0
        with self.path.open("r+b" if self.path.exists() else "w+b") as file:
            for indices in self.batches:
                tokens = sum(self.samples[index].counted_tokens for index in indices)
                if (done + tokens) * self.row_bytes <= present_bytes:  # whole in the killed attempt
                    done += tokens
                    continue
                file.seek(done * self.row_bytes)
                file.write(states_of(indices))
                file.flush()
                os.fsync(file.fileno())
                done += tokens
                on_progress(done, total, f"tokens, {done / (time.monotonic() - started):.0f} tok/s")
            file.truncate(total * self.row_bytes)


def _states_of(
    model: nn.Module, samples: Sequence[Sample], pad_token: int
) -> Callable[[Sequence[int]], bytes]:
    """Returns a function from samples, as indices, to their counted states in order, as the file holds them."""
    import torch

    from edgewright_builder.train.packing import counted_hidden, layout_for

    layout = layout_for(model, samples, pad_token)

    @torch.inference_mode()
    def states(indices: Sequence[int]) -> bytes:
        hidden = torch.cat([counted_hidden(model, batch).cpu() for batch in layout.batches(indices)])
        return hidden.view(torch.uint8).numpy().tobytes()

    return states


def read_hidden_states(
    folder: Path, samples: Sequence[Sample], vocabulary: int | None = None
) -> HiddenStates:
    """Returns T2's hidden states of the samples, mapped from disk, and the first `vocabulary` rows of its head.

    Families pad their heads to different heights, so a student may have fewer rows than T2. Raises InputError or
    OutsideError where the cache does not hold these samples.
    """
    import torch

    from edgewright_builder.train.teacher_knowledge import HiddenStates

    precision = getattr(torch, _read_index(folder)["dtype"])
    return HiddenStates(read_states(folder, samples), read_head(folder, precision).cut(vocabulary))


def read_states(folder: Path, samples: Sequence[Sample]) -> Callable[[int], Tensor]:
    """Returns sample index → its (counted tokens, hidden) states, mapped from disk. Raises as `read_hidden_states`."""
    import torch

    index = _read_index(folder)
    if sorted(index["order"]) != list(range(len(samples))):
        raise InputError(
            f"{folder} caches {len(index['order'])} samples, {len(samples)} are needed; delete {folder} and run "
            "again with --resume."
        )
    tokens = sum(sample.counted_tokens for sample in samples)
    rows = _mapped_rows(folder, tokens, index["hidden_size"], getattr(torch, index["dtype"]))
    starts, position = {}, 0
    for sample_index in index["order"]:
        starts[sample_index] = position
        position += samples[sample_index].counted_tokens

    def hidden_of(sample_index: int) -> Tensor:
        start = starts[sample_index]
        return rows[start : start + samples[sample_index].counted_tokens]

    return hidden_of


def _mapped_rows(folder: Path, tokens: int, hidden_size: int, dtype: torch.dtype) -> Tensor:
    """Returns `hidden.bin`, (tokens, hidden), mapped from disk."""
    import torch

    path = folder / "hidden.bin"
    expected_bytes = tokens * hidden_size * dtype.itemsize
    if path.stat().st_size != expected_bytes:
        raise OutsideError(
            f"{path} has {path.stat().st_size} bytes instead of {expected_bytes}; delete {folder} and run again "
            "with --resume."
        )
    values = torch.from_file(str(path), shared=False, size=tokens * hidden_size, dtype=dtype)
    return values.view(tokens, hidden_size)


def read_head(folder: Path, precision: torch.dtype | None = None) -> OutputHead:
    """Returns T2's output head in `precision`, or as it is kept."""
    import torch
    from safetensors.torch import load_file

    from edgewright_builder.train.output_head import OutputHead

    tensors = load_file(folder / "head.safetensors")
    softcap = float(tensors["softcap"]) if "softcap" in tensors else None
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return OutputHead(tensors["head"].to(device, precision), softcap)


def _read_index(folder: Path) -> dict[str, Any]:
    index: dict[str, Any] = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    return index
