"""Make a tiny random Llama whose graph takes adapters, two adapters for it, and what `transformers` says of each.

    python -m tests.support.tiny_adapter FOLDER

A script of its own, because the exporter and torch warn. FOLDER gets `tree` (engine and tokenizer), `first` and
`second` (.onnx_adapter files, the second one of another rank and of fewer modules) and `reference.json`.
"""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import torch

from edgewright_builder.export.lora_slots import add_slots, write_adapter
from edgewright_builder.recipe.hyperparameters import Hyperparameters
from edgewright_builder.recipe.model_recipe import PROJECTIONS
from edgewright_builder.stages.finetune_adapter import adapter_factors
from edgewright_builder.train.lora import add_lora, merge_lora
from tests.support.tiny_model import make_model, make_tokenizer

PROMPT = tuple(range(20, 60))
CONTINUATION = tuple(range(100, 120))
GREEDY_TOKENS = 12
ADAPTERS = {"first": (4, PROJECTIONS), "second": (2, ("q_proj", "down_proj"))}


def main(folder: Path) -> None:
    """Write everything below `folder`."""
    checkpoint = folder / "checkpoint"
    make_model().save_pretrained(checkpoint)
    make_tokenizer().save_pretrained(checkpoint)
    make_tokenizer().save_pretrained(folder / "tree" / "tokenizer")
    reference = {"base": said_by(make_model())}
    for name, (rank, modules) in ADAPTERS.items():
        adapted = random_adapter(make_model(), rank, modules)
        write_adapter(adapter_factors(adapted), folder / f"{name}.onnx_adapter")
        reference[name] = said_by(merge_lora(adapted))
    (folder / "reference.json").write_text(json.dumps(reference), encoding="utf-8")
    engine = folder / "tree" / "engine"
    sys.argv[1:] = ["-i", str(checkpoint), "-o", str(engine), "-p", "fp32", "-e", "cpu"]
    sys.argv += ["--extra_options", "fuse_qkv=false"]
    runpy.run_module("onnxruntime_genai.models.builder", run_name="__main__")
    add_slots(engine / "model.onnx", PROJECTIONS)


def random_adapter(model: Any, rank: int, modules: tuple[str, ...]) -> Any:
    """LoRA factors large enough to change every token; half-precision values, as adapters are shipped."""
    adapted = add_lora(
        model, Hyperparameters("adam", 1e-3, 0.0, rank, 2.0, 1.0, 1.0), seed=rank, modules=modules
    )
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.copy_((0.2 * torch.randn_like(parameter)).half().float())
    return adapted


@torch.no_grad()
def said_by(model: Any) -> dict[str, Any]:
    """Log-likelihood of the continuation, and the greedy tokens after the prompt."""
    whole = torch.tensor([[*PROMPT, *CONTINUATION]])
    rows = torch.log_softmax(model(whole).logits[0, len(PROMPT) - 1 : -1], dim=-1)
    likelihood = rows.gather(1, torch.tensor(CONTINUATION)[:, None]).sum()
    greedy = model.generate(
        torch.tensor([PROMPT]),
        max_new_tokens=GREEDY_TOKENS,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    return {"log_likelihood": float(likelihood), "greedy": greedy[0, len(PROMPT) :].tolist()}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
