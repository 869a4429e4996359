"""The stage `recover`: what GPTQ lost is trained back into the scales; the 4-bit codes stay, or round anew.

The teacher is the 16-bit fine-tuned model: 4 bits are to keep what it learned. Half of the steps see the task's pairs,
half see general text, so that neither is lost.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright_builder.stages.general_text import general_digest, general_samples, split_general
from edgewright_builder.stages.teacher import pad_token, sample_inputs, samples_of
from edgewright_builder.teacher_cache.hidden_states import cache_hidden_states, read_hidden_states

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgewright_builder.recipe.model_recipe import RecoverSettings
    from edgewright_builder.run.build_definition import Build
    from edgewright_builder.run.resumable_run import FinishedStage
    from edgewright_builder.train.epoch import DistillationData, Divergence
    from edgewright_builder.train.samples import Sample


def run_recover(
    build: Build, data: FinishedStage, finetuned: FinishedStage, quantized: FinishedStage
) -> FinishedStage:
    """Runs the stage, or keeps what it left. Product: `model`, a GPTQ checkpoint, unless `recover: off`. Resumable."""
    settings = build.recipe.recover
    if settings.train == "off":
        return build.run.stage("recover", {"train": "off"}, lambda _: {"train": "off"}, products=())
    inputs = {
        "teacher": finetuned.output_digest,
        "checkpoint": quantized.output_digest,
        "data": data.output_digest,
        **sample_inputs(build.distillation),
        "recover": settings.model_dump(exclude={"data"}),
        "general": general_digest(settings.data, settings.general_share),
        "validation_fraction": build.recipe.finetune.validation_fraction,
        "seed": build.recipe.seed,
    }
    if build.recipe.finetune.precision is not None:
        inputs["precision"] = build.recipe.finetune.precision

    def work(folder: Path) -> dict[str, Any]:
        pairs = [
            replace(sample, first=0) for sample in samples_of(build.distillation, data)
        ]  # every token counts
        general = []
        if settings.general_share > 0:
            limit = build.recipe.finetune.sequence_tokens
            general = general_samples(build.distillation.student, build.recipe.recover.data, limit)
        texts = Texts(pairs, general, build.recipe.finetune.validation_fraction)
        teacher, checkpoint = finetuned.folder / "model", quantized.folder / "model"
        return recover(teacher, checkpoint, texts, build, folder)

    return build.run.stage("recover", inputs, work, products=("model",), resumable=True)


def shipped(quantized: FinishedStage, recovered: FinishedStage) -> FinishedStage:
    """Returns the stage whose checkpoint is exported."""
    return recovered if (recovered.folder / "model").is_dir() else quantized


@dataclass(frozen=True)
class Texts:
    """What recovery trains and validates on."""

    pairs: list[Sample]
    general: list[Sample]
    validation_fraction: float  # of the pairs, the same split as in fine-tuning


def recover(teacher: Path, checkpoint: Path, texts: Texts, build: Build, folder: Path) -> dict[str, Any]:
    """Writes `folder/model`. Returns KL(teacher ‖ model) before and after, on held-out pairs and general text.

    A training that makes it worse is dropped: then `model` is what GPTQ left. Raises InputError for a checkpoint with
    zero points or act-order.
    """
    from edgewright_builder.models.bfloat16_products import torch_precision
    from edgewright_builder.quantization.learned_rounding import changed_codes_fraction
    from edgewright_builder.train import recovery

    settings, step = build.recipe.recover, build.run.reporter.step
    model = _with_trainable_scales(checkpoint, teacher, settings)
    material = _material(teacher, texts, build, folder)
    before = _judge(model, material, settings)
    precision = torch_precision(build.recipe.finetune.precision)
    steps = recovery.recover(
        model, material.data, material.batches, settings, folder / "state.pt", step, precision
    )
    after = _judge(model, material, settings)
    better = _mean(after) < _mean(before)
    _write_model(checkpoint, folder, recovery.recovered_tensors(model, settings) if better else {})
    if not better:
        build.run.reporter.note(
            f"recover: {_mean(before):.3f} became {_mean(after):.3f}; what came before is kept"
        )
    summary = {
        "train": settings.train if better else "kept what came before",
        **_means(before, "before"),
        **_means(after, "after"),
        # No step now: all were taken before a kill.
        "steps": steps[-1].step if steps else settings.steps,
        "tokens": steps[-1].tokens if steps else material.tokens,
    }
    if better and settings.train == "rounding":
        summary["codes_changed_fraction"] = changed_codes_fraction(model)
    return summary


def _with_trainable_scales(checkpoint: Path, teacher: Path, settings: RecoverSettings) -> nn.Module:
    """Returns the checkpoint's model: its codes frozen, or free to round anew towards the teacher's weights."""
    from edgewright_builder.quantization.frozen_codes import load_frozen_codes
    from edgewright_builder.quantization.learned_rounding import learn_rounding

    model = load_frozen_codes(checkpoint)
    if settings.train == "rounding":
        learn_rounding(model, teacher)
    return model


def _means(divergences: dict[str, Divergence], when: str) -> dict[str, float]:
    return {f"kl_{name}_{when}": divergence.mean for name, divergence in divergences.items()}


def _write_model(checkpoint: Path, folder: Path, changed: dict[str, Tensor]) -> None:
    """Writes `folder/model`, the checkpoint with the changed tensors, in place of what a killed attempt left."""
    from edgewright_builder.quantization.frozen_codes import write_checkpoint

    shutil.rmtree(folder / "model", ignore_errors=True)
    write_checkpoint(checkpoint, folder / "model", changed)
    (folder / "state.pt").unlink(missing_ok=True)  # minutes that end before the first save leave none


@dataclass(frozen=True)
class Material:
    """The samples that are used, with the teacher's states: what each step takes, and what is held out of each kind."""

    data: DistillationData
    batches: list[list[int]]
    held_out: dict[str, list[int]]

    @property
    def tokens(self) -> int:
        """The counted tokens of all steps."""
        return sum(self.data.samples[index].counted_tokens for batch in self.batches for index in batch)


def _material(teacher: Path, texts: Texts, build: Build, folder: Path) -> Material:
    """Returns what is trained and judged on; the teacher reads those samples alone, once, and its states are cached."""
    from edgewright_builder.train.epoch import DistillationData
    from edgewright_builder.train.recovery import RecoverySamples
    from edgewright_builder.train.samples import split

    job, settings, seed = build.distillation, build.recipe.recover, build.recipe.seed
    samples = [*texts.pairs, *texts.general]
    pairs, pairs_held_out = split(texts.pairs, texts.validation_fraction, seed)
    general, general_held_out = (
        [len(texts.pairs) + index for index in part] for part in split_general(texts.general, seed)
    )
    batches = RecoverySamples(samples, pairs, general).batches(settings, seed)
    used = sorted({*(index for batch in batches for index in batch), *pairs_held_out, *general_held_out})
    place = {index: position for position, index in enumerate(used)}
    kept = [samples[index] for index in used]
    cache = folder / "teacher"
    cache.mkdir(exist_ok=True)
    cache_hidden_states(teacher, kept, settings.batch_tokens, pad_token(job), cache, build.run.reporter.step)
    data = DistillationData(kept, (), (), read_hidden_states(cache, kept), pad_token(job))
    held_out = {"pairs": pairs_held_out, "general": general_held_out}
    return Material(
        data,
        [[place[index] for index in batch] for batch in batches],
        {name: [place[index] for index in indices] for name, indices in held_out.items() if indices},
    )


def _judge(model: nn.Module, material: Material, settings: RecoverSettings) -> dict[str, Divergence]:
    from edgewright_builder.train.epoch import validation_divergence

    return {
        name: validation_divergence(model, replace(material.data, validation=indices), settings.batch_tokens)
        for name, indices in material.held_out.items()
    }


def _mean(divergences: dict[str, Divergence]) -> float:
    """Returns the mean of the kinds: neither the pairs nor the general text decides alone."""
    return sum(each.mean for each in divergences.values()) / len(divergences)
