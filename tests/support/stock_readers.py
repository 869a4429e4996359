"""Asks others' readers for a GPTQ checkpoint's next tokens: `python stock_readers.py READER CHECKPOINT TEXTS`.

READER is gptqmodel or transformers. TEXTS is a JSON list of [prompt, answer], both token lists. The last line printed
is a JSON list: by how much, at most, another token is likelier than one of the answer's; 0 for greedy tokens.
A script of its own, because GPTQModel changes libraries that it is imported beside.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def load(reader: str, checkpoint: str) -> Any:
    """The model on the CPU, in the widest type that the reader lets one ask for."""
    if reader == "gptqmodel":
        from gptqmodel import BACKEND, GPTQModel

        return GPTQModel.load(checkpoint, device="cpu", dtype=torch.float16, backend=BACKEND.TORCH).model
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, device_map="cpu")


def shortfall(logits: Tensor, answer: Sequence[int]) -> float:
    """Of logits (answer, vocabulary): by how much an answer's token is less likely than the likeliest, at most."""
    chosen = logits.gather(1, torch.tensor(answer)[:, None])[:, 0]
    return float((logits.max(dim=1).values - chosen).max())


@torch.inference_mode()
def answer_logits(model: Any, prompt: Sequence[int], answer: Sequence[int]) -> Tensor:
    """Logits (answer, vocabulary) that predict the answer's tokens."""
    tokens = torch.tensor([[*prompt, *answer]])
    logits: Tensor = model(input_ids=tokens, use_cache=False).logits[0, len(prompt) - 1 : -1]
    return logits.float()


def main(reader: str, checkpoint: str, texts: str) -> None:
    """Writes the shortfalls to stdout."""
    model = load(reader, checkpoint).eval()
    values = [shortfall(answer_logits(model, *text), text[1]) for text in json.loads(texts)]
    sys.stdout.write(f"\n{json.dumps(values)}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
