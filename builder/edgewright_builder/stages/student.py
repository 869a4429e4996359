"""The stage `student`: the base model at the plan's depth, the least influential layers left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright.durable import write_json
from edgewright.errors import InputError
from edgewright_builder.stages.teacher import sample_inputs, samples_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgewright_builder.run.build_definition import Build
    from edgewright_builder.run.progress import OnProgress
    from edgewright_builder.run.resumable_run import FinishedStage
    from edgewright_builder.train.samples import Sample

INFLUENCE_TOKENS = 4096  # of the generated data; the ranking is stable long before


def run_student(build: Build, data: FinishedStage) -> FinishedStage:
    """Runs the stage, or keeps what it left. Product: `model`, a checkpoint. The data matters only for pruning."""
    job = build.distillation
    layers, drop_layers = build.plan.configuration.layers, build.recipe.student.drop_layers
    inputs: dict[str, Any] = {"base": job.student_digest, "layers": layers, "drop_layers": drop_layers}
    if layers < job.architecture.layers and drop_layers is None:
        inputs |= {"data": data.output_digest, **sample_inputs(job)}

    def work(folder: Path) -> dict[str, Any]:
        step = build.run.reporter.step
        return make_student(job.student, samples_of(job, data), layers, drop_layers, folder, step)

    return build.run.stage("student", inputs, work, products=("model",))


def make_student(
    base: Path,
    samples: Sequence[Sample],
    layers: int,
    drop_layers: Sequence[int] | None,
    folder: Path,
    on_progress: OnProgress,
) -> dict[str, Any]:
    """Writes `folder/model`: `base` with `layers` layers left. Returns their number and which were dropped."""
    from edgewright_builder.models.folder import load_model, load_tokenizer

    model = load_model(base)
    total = len(decoder_layers(model))
    influence: list[float] = []
    if drop_layers is None and layers < total:
        influence = block_influence(model, samples, on_progress)
    dropped = list(drop_layers) if drop_layers is not None else least_influential(influence, total - layers)
    remove_layers(model, dropped)
    model.save_pretrained(folder / "model")  # type: ignore[operator]
    load_tokenizer(base).save_pretrained(folder / "model")
    write_json(folder / "influence.json", {"influence": influence, "dropped_layers": dropped})
    return {"layers": total - len(dropped), "dropped_layers": dropped}


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """Returns the model's blocks."""
    layers: nn.ModuleList = model.get_decoder().layers  # type: ignore[operator]
    return layers


def block_influence(model: nn.Module, samples: Sequence[Sample], on_progress: OnProgress) -> list[float]:
    """Returns per layer 1 − E[cos(x_in, x_out)] over tokens: how much the layer turns its input.

    Men et al. 2024, ShortGPT, arXiv 2403.03853, equation (1).
    """
    import torch

    layers = decoder_layers(model)
    sums, tokens = [0.0] * len(layers), 0

    def measure(index: int) -> Callable[[nn.Module, tuple[Tensor, ...], Any], None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
            after = output[0] if isinstance(output, tuple) else output
            sums[index] += float((1 - torch.cosine_similarity(inputs[0], after, dim=-1)).sum())

        return hook

    handles = [layer.register_forward_hook(measure(index)) for index, layer in enumerate(layers)]
    device = next(model.parameters()).device
    try:
        with torch.inference_mode():
            for sample in samples:
                if tokens >= INFLUENCE_TOKENS:
                    break
                model.get_decoder()(input_ids=torch.tensor([sample.tokens], device=device), use_cache=False)  # type: ignore[operator]
                tokens += len(sample.tokens)
                on_progress(min(tokens, INFLUENCE_TOKENS), INFLUENCE_TOKENS, "tokens, block influence")
    finally:
        for handle in handles:
            handle.remove()
    return [total / tokens for total in sums]


def least_influential(influence: Sequence[float], count: int) -> list[int]:
    """Returns the `count` layers of least influence, in order; the first and the last layer always stay."""
    inner = range(1, len(influence) - 1)
    return sorted(sorted(inner, key=lambda index: influence[index])[:count])


def remove_layers(model: nn.Module, dropped: Sequence[int]) -> None:
    """Takes the layers out of the model and of its configuration. Raises InputError for one that it lacks."""
    from torch import nn

    layers = decoder_layers(model)
    if wrong := [index for index in dropped if not 0 <= index < len(layers)]:
        raise InputError(
            f"`student.drop_layers` names layer {wrong[0]}; the model has layers 0 to {len(layers) - 1}. Remove it."
        )
    kept = [index for index in range(len(layers)) if index not in set(dropped)]
    config: Any = model.config
    model.get_decoder().layers = nn.ModuleList(layers[index] for index in kept)  # type: ignore[operator]
    for position, layer in enumerate(decoder_layers(model)):
        layer.self_attn.layer_idx = position  # type: ignore[union-attr]
    config.num_hidden_layers = len(kept)
    for key, value in list(config.to_dict().items()):  # layer_types, no_rope_layers: one entry a layer
        if isinstance(value, list) and len(value) == len(layers):
            setattr(config, key, [value[index] for index in kept])
