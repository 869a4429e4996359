"""What the layers of a model are called with while it is quantized."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgewright_builder.parity.checkpoint import make_checkpoint
from edgewright_builder.quantization.gptq_checkpoint import load_dequantized
from edgewright_builder.quantization.layer_inputs import keep_layer_inputs
from tests.support.gptq_checkpoints import FAMILIES

SEQUENCES = [[5, 9, 30, 77, 12, 8, 101, 44] * 10, [7, 3, 60, 2, 9] * 14]  # longer than the window of 48


def model_of(family: str, folder: Path) -> Any:
    """A tiny model with random weights."""
    config: Mapping[str, Any] = FAMILIES[family]
    make_checkpoint({key: value for key, value in config.items() if value is not None}, folder / "model")
    return load_dequantized(folder / "model", torch.float32)


def replayed(model: Any, tokens: list[int]) -> list[Tensor]:
    """Each layer's output where all are called with what the first is called with, as quantizers do."""
    calls: list[tuple[Tensor, dict[str, Any]]] = []

    def record(_layer: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        calls.append((arguments[0], keywords))

    hook = model.model.layers[0].register_forward_pre_hook(record, with_kwargs=True)
    with torch.no_grad():
        model(torch.tensor([tokens]), use_cache=False)
        hook.remove()
        hidden, keywords = calls[0]
        outputs = []
        for layer in model.model.layers:
            answer = layer(hidden, **keywords)
            hidden = answer[0] if isinstance(answer, tuple) else answer
            outputs.append(hidden)
    return outputs


def expected(model: Any, tokens: list[int]) -> Tensor:
    """What the last layer says in the model itself."""
    heard: list[Tensor] = []

    def record(_layer: nn.Module, _arguments: Any, answer: Any) -> None:
        heard.append(answer[0] if isinstance(answer, tuple) else answer)

    hook = model.model.layers[-1].register_forward_hook(record)
    with torch.no_grad():
        model(torch.tensor([tokens]), use_cache=False)
    hook.remove()
    return heard[0]


@pytest.mark.parametrize(
    ("family", "differing"), [("gemma3", 1), ("gemma2", 2), ("llama", 0), ("smollm3", 0)]
)
def test_every_layer_is_called_with_its_own_positions_and_mask(
    family: str, differing: int, tmp_path: Path
) -> None:
    model = model_of(family, tmp_path)
    truth = [expected(model, tokens) for tokens in SEQUENCES]
    assert keep_layer_inputs(model, model.model.layers, SEQUENCES) == differing
    for tokens, last in zip(SEQUENCES, truth, strict=True):
        torch.testing.assert_close(replayed(model, tokens)[-1], last)


def test_without_it_a_model_of_two_kinds_of_layers_says_something_else(tmp_path: Path) -> None:
    model = model_of("gemma3", tmp_path)
    last = expected(model, SEQUENCES[0])
    assert not torch.allclose(replayed(model, SEQUENCES[0])[-1], last, rtol=1e-2, atol=1e-2)
