"""What a second rounding on the way to GGUF costs: the exact repack beside dequantizing and quantizing to Q4_0 again.

    python benchmarks/gguf_quality.py CHECKPOINT --reference MODEL --text test.txt [--windows 40] [--tokens 512]

llama.cpp's own road from a GPTQ checkpoint dequantizes it and lets its quantizer round to Q4_0, which picks the block's
scale anew; that quantizer is the `gguf` package's here. Embedding and head are the same Q8_0 in both files. Prints, for
windows of the text, perplexity and the KL divergence to the 16-bit MODEL, with the standard error of the paired
difference, and the share of weights that the second rounding changes. Both are computed in float32 by transformers.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from edgewright_builder.export.gguf.file import write_gguf
from edgewright_builder.models.folder import load_model

EMBEDDING_BITS = 8


@dataclass(frozen=True)
class Window:
    """One window of text under one model: mean negative log-likelihood, and mean KL to the reference, in nats."""

    loss: float
    divergence: float


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, help="a symmetric GPTQ checkpoint")
    parser.add_argument("--reference", type=Path, required=True, help="the model in 16 bits or more")
    parser.add_argument(
        "--text", type=Path, required=True, help="plain text, such as WikiText-2's test split"
    )
    parser.add_argument("--windows", type=int, default=40)
    parser.add_argument("--tokens", type=int, default=512)
    options = parser.parse_args()
    windows = list(windows_of(options.checkpoint, options.text, options.tokens))[: options.windows]
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "model.gguf"
        write_gguf(options.checkpoint, EMBEDDING_BITS, file, "exact")
        exact, again, changed = both_states(file, options.checkpoint)
    reference = load_model(options.reference)
    results = {
        name: measure(model_with(options.checkpoint, state), reference, windows)
        for name, state in (("exact repack", exact), ("dequantized, Q4_0 again", again))
    }
    print_table(results, changed, sum(map(len, windows)))


def windows_of(checkpoint: Path, text: Path, tokens: int) -> Iterator[Tensor]:
    """Consecutive windows of the text's tokens."""
    ids = AutoTokenizer.from_pretrained(checkpoint)(text.read_text(encoding="utf-8"))["input_ids"]
    for start in range(0, len(ids) - tokens, tokens):
        yield torch.tensor(ids[start : start + tokens])


def both_states(file: Path, checkpoint: Path) -> tuple[dict[str, Tensor], dict[str, Tensor], float]:
    """(weights of the file, the same with every projection rounded to Q4_0 again, share of weights changed)."""
    import gguf

    from edgewright_builder.quantization.gptq_checkpoint import dequantized_state, read_tensors

    exact = dequantized_state(read_tensors(checkpoint))
    tables = {"token_embd.weight": "model.embed_tokens.weight", "output.weight": "lm_head.weight"}
    for tensor in gguf.GGUFReader(file).tensors:
        if tensor.name in tables:
            rounded = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            exact[tables[tensor.name]] = torch.from_numpy(np.array(rounded))
    again, changed, count = dict(exact), 0, 0
    for name, weight in exact.items():
        if weight.ndim == 2 and name not in tables.values():
            kind = gguf.GGMLQuantizationType.Q4_0
            rounded = gguf.quants.dequantize(gguf.quants.quantize(weight.float().numpy(), kind), kind)
            again[name] = torch.from_numpy(rounded.reshape(weight.shape))
            changed += int((again[name] != weight).sum())
            count += weight.numel()
    return exact, again, changed / count


def model_with(checkpoint: Path, state: dict[str, Tensor]) -> nn.Module:
    """The checkpoint's model with these weights, in float32."""
    config = AutoConfig.from_pretrained(checkpoint)
    del config.quantization_config
    model: nn.Module = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(state, strict=False)
    return model.eval()


@torch.inference_mode()
def measure(model: nn.Module, reference: nn.Module, windows: list[Tensor]) -> list[Window]:
    """Every window under the model and the reference."""
    results = []
    for window in windows:
        ours = model(window[None]).logits[0, :-1].float().log_softmax(-1)
        theirs = reference(window[None]).logits[0, :-1].float().log_softmax(-1)
        loss = -ours.gather(1, window[1:, None]).mean()
        divergence = (theirs.exp() * (theirs - ours)).sum(-1).mean()
        results.append(Window(float(loss), float(divergence)))
    return results


def print_table(results: dict[str, list[Window]], changed: float, tokens: int) -> None:
    """Means, and the paired difference of the second row to the first."""
    print(
        f"{tokens} tokens in {len(next(iter(results.values())))} windows; {changed:.1%} of the weights change\n"
    )
    print("| way to GGUF | perplexity | KL to 16 bits, nats |\n|---|--:|--:|")
    for name, windows in results.items():
        loss = np.array([window.loss for window in windows])
        divergence = np.array([window.divergence for window in windows])
        print(f"| {name} | {math.exp(loss.mean()):.3f} | {divergence.mean():.5f} |")
    first, second = results.values()
    for field, unit in (("loss", "of log perplexity"), ("divergence", "of KL")):
        gaps = np.array([getattr(b, field) - getattr(a, field) for a, b in zip(first, second, strict=True)])
        error = gaps.std(ddof=1) / math.sqrt(len(gaps))
        print(f"\nsecond rounding adds {gaps.mean():+.5f} ± {error:.5f} nats {unit}")


if __name__ == "__main__":
    main()
