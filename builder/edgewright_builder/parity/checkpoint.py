"""A tiny random model as a build leaves it before export: a GPTQ checkpoint in 4 bits.

Every weight is drawn on the grid that its quantization has, so that no rounding stands between transformers and the
engine. Norms and biases are drawn too: at their initial values, one and zero, a dropped one would not be noticed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright_builder.fit.proof.tiny_config import GROUP, VOCABULARY

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

HEAD_BITS = 8
LINEAR_CODE_MAX = 8
LAST_NORM = "model.norm.weight"
SPREAD = 1.5  # standard deviation of what a projection makes of inputs of variance one
VECTOR_SPREAD = 0.3  # of norms and biases
SYMMETRIC_ZEROS = 0x77777777  # GPTQ v1 stores each zero point less one
QUANTIZATION = {
    "bits": 4, "group_size": GROUP, "sym": True, "desc_act": False, "quant_method": "gptq",
    "checkpoint_format": "gptq", "lm_head": False,
}  # fmt: skip


def make_checkpoint(
    config: Mapping[str, Any],
    folder: Path,
    seed: int = 0,
    *,
    table_code_max: int = 2 ** (HEAD_BITS - 1),
    logit_scale: float = 1.0,
) -> nn.Module:
    """Writes the checkpoint of a tiny `config` to the new `folder`. Returns the same model in float32.

    `table_code_max` is the largest code of the grid that embedding and head lie on. `logit_scale` shrinks the weight of
    the last norm.
    """
    import torch
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForCausalLM

    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    _write_tokenizer(folder)
    model: nn.Module = AutoModelForCausalLM.from_config(
        AutoConfig.from_pretrained(folder), dtype=torch.float32, attn_implementation="eager"
    )
    with torch.no_grad():
        tensors = _draw(model, table_code_max, logit_scale, torch.Generator().manual_seed(seed))
    save_file(tensors, str(folder / "model.safetensors"), {"format": "pt"})
    quantized = {**config, "architectures": [type(model).__name__], "quantization_config": QUANTIZATION}
    (folder / "config.json").write_text(json.dumps(quantized), encoding="utf-8")
    return model.eval()


def _draw(model: nn.Module, table_code_max: int, logit_scale: float, draw: Generator) -> dict[str, Tensor]:
    """Gives every parameter a random value. Returns the checkpoint's tensors."""
    from torch import nn

    head: Any = model.get_output_embeddings()  # type: ignore[operator]
    embeddings: Any = model.get_input_embeddings()  # type: ignore[operator]
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            _draw_vector(name, parameter, logit_scale if name == LAST_NORM else 1.0, draw)
    for table in {id(module.weight): module.weight for module in (embeddings, head)}.values():
        _draw_table(table, table_code_max, draw)
    packed: dict[str, Tensor] = {}
    weights = set()
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and module is not head:
            packed |= {f"{name}.{part}": value for part, value in _quantized(module, draw).items()}
            weights.add(f"{name}.weight")
    plain = {name: value.detach() for name, value in model.named_parameters() if name not in weights}
    return {name: value.clone().contiguous() for name, value in (packed | plain).items()}


def _draw_vector(name: str, parameter: Tensor, scale: float, draw: Generator) -> None:
    """Draws a norm's weight around what it begins with, a bias around zero. `scale` is of what a norm multiplies by."""
    import torch

    centre = 0.0 if name.endswith("bias") else float(parameter.mean())
    drawn = centre + VECTOR_SPREAD * torch.randn(parameter.shape, generator=draw)
    offset = 1.0 - centre  # Gemma multiplies by one more than the weight
    parameter.copy_(drawn if scale == 1.0 else scale * (drawn + offset) - offset)


def _draw_table(table: Tensor, code_max: int, draw: Generator) -> None:
    """Draws an embedding or a head on a grid of 8 bits with scales in float16."""
    outputs, inputs = table.shape
    codes, scales = _grid(outputs, inputs, code_max, draw)
    table.copy_(codes * (scales / codes.std()).half().float().repeat_interleave(GROUP, dim=1))


def _quantized(linear: nn.Linear, draw: Generator) -> dict[str, Tensor]:
    """Draws a projection in 4 bits. Returns it as GPTQ v1 packs it: eight codes of consecutive inputs a word."""
    import torch

    outputs, inputs = linear.weight.shape
    codes, scales = _grid(outputs, inputs, LINEAR_CODE_MAX, draw)
    scales = (scales * SPREAD / (codes.std() * inputs**0.5)).half().float()
    linear.weight.copy_(codes * scales.repeat_interleave(GROUP, dim=1))
    unsigned = (codes + 8).to(torch.int64).T
    words = sum(unsigned[position::8] << (4 * position) for position in range(8))
    return {
        "qweight": _as_int32(words),
        "qzeros": torch.full((inputs // GROUP, outputs // 8), SYMMETRIC_ZEROS, dtype=torch.int32),
        "scales": scales.T.contiguous().half(),
        "g_idx": (torch.arange(inputs) // GROUP).to(torch.int32),
    }


def _as_int32(words: Any) -> Tensor:
    import torch

    signed: Tensor = torch.where(words >= 2**31, words - 2**32, words)
    return signed.to(torch.int32).contiguous()


def _grid(outputs: int, inputs: int, code_max: int, draw: Generator) -> tuple[Tensor, Tensor]:
    """Signed codes (outputs, inputs), and a scale in float16 for each group of inputs.

    Every group holds the code of largest size, so that rounding the weights again finds the same scales and codes.
    """
    import torch

    groups = (outputs, inputs // GROUP)
    codes = torch.randn(*groups, GROUP, generator=draw) * code_max / 3
    codes = codes.round().clamp(1 - code_max, code_max - 1)
    extreme = torch.randint(0, GROUP, (*groups, 1), generator=draw)
    codes.scatter_(2, extreme, -float(code_max))
    scales = (0.75 + 0.5 * torch.rand(groups, generator=draw)).half().float()
    return codes.reshape(outputs, inputs), scales


def _write_tokenizer(folder: Path) -> None:
    """Bytes, and special tokens up to the vocabulary's size."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = [f"<|{number}|>" for number in range(VOCABULARY - len(alphabet))]
    words = {word: index for index, word in enumerate([*special, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=words, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=special[0], eos_token=special[1], pad_token=special[1]
    )
    fast.save_pretrained(folder)
