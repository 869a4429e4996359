"""The checkpoint that ships, run by transformers: for engines that run on a board alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright_builder.local_engine.golden_prompt import Greedy
from edgewright_builder.models.folder import read_config

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ReferenceModel:
    """A GPTQ checkpoint, each weight the float that its code and scale stand for. A `GreedyEngine`."""

    model: Any
    tokenizer: Any

    def greedy(self, prompt: str, max_tokens: int) -> Greedy:
        """Generates at most `max_tokens`, each with its lead over the runner-up in nats."""
        import torch
        from transformers import DynamicCache

        from edgewright_builder.models.folder import cache_argument

        ends = _end_tokens(self.model)
        ids = self.tokenizer(prompt, return_tensors="pt").input_ids.to(self.model.device)
        tokens: list[int] = []
        leads: list[float] = []
        cache = {
            cache_argument(self.model): DynamicCache(config=self.model.config)
        }  # which the model extends
        with torch.inference_mode():
            while len(tokens) < max_tokens and not (tokens and tokens[-1] in ends):
                out = self.model(input_ids=ids, use_cache=True, **cache)
                best = out.logits[0, -1].float().topk(2)
                tokens.append(int(best.indices[0]))
                leads.append(float(best.values[0] - best.values[1]))
                ids = best.indices[:1][None]
        return Greedy(tuple(tokens), tuple(leads))


def open_references(checkpoint: Path) -> Sequence[Callable[[], AbstractContextManager[ReferenceModel]]]:
    """Returns what opens the checkpoint in float32, and in the 16-bit type that a board's GPU computes it in."""
    import torch

    half = getattr(torch, read_config(checkpoint)["dtype"])
    return tuple(partial(_open, checkpoint, dtype) for dtype in (torch.float32, half))


@contextmanager
def _open(checkpoint: Path, dtype: torch.dtype) -> Iterator[ReferenceModel]:
    from edgewright_builder.models.folder import load_tokenizer
    from edgewright_builder.quantization.gptq_checkpoint import load_dequantized

    yield ReferenceModel(load_dequantized(checkpoint, dtype), load_tokenizer(checkpoint))


def _end_tokens(model: Any) -> set[int]:
    named = model.generation_config.eos_token_id if model.generation_config is not None else None
    named = model.config.eos_token_id if named is None else named
    return set() if named is None else set(named) if isinstance(named, list) else {int(named)}
